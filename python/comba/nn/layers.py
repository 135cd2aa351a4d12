"""The layers around a mixer, with the parameter names of flash-linear-attention's checkpoints.

Shapes: B batch, T tokens, D model width, C channels, W filter width, K head dim.
"""

import torch
import torch.nn.functional as F
from torch import nn

import comba.ops  # noqa: F401  registers torch.ops.comba


class RMSNorm(nn.Module):
    """y = weight x / sqrt(mean(x^2) + eps) f(gate), in fp32 for 16-bit x.  x, gate [..., D] -> [..., D]

    f is `gate_function`, "sigmoid" (Comba) or "silu" (Gated DeltaNet). Parameter: weight [D].
    """

    def __init__(self, dim: int, eps: float = 1e-5, gate_function: str = "sigmoid", device=None, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.eps = eps
        self.gate_function = gate_function
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        return torch.ops.comba.rms_norm(x, self.weight, gate, gate_function=self.gate_function, eps=self.eps)


class ShortConvolution(nn.Module):
    """y[t, c] = silu(sum_j weight[c, j] x[t - (W - 1) + j, c]): causal, one filter a channel.  [B, T, C] -> [B, T, C]

    Parameter: weight [C, 1, W].
    """

    def __init__(self, channels: int, width: int, device=None, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, width, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -(self.weight.shape[2] ** -0.5), self.weight.shape[2] ** -0.5)

    def initial_tail(self, batch: int) -> torch.Tensor:
        """What a stream reads before its first token: zeros [B, W - 1, C]."""
        channels, _, width = self.weight.shape
        return self.weight.new_zeros(batch, width - 1, channels)

    def forward(
        self, x: torch.Tensor, tail: torch.Tensor | None = None, cu_seqlens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """tail: the W - 1 inputs before x, which no gradient reaches; cu_seqlens [N + 1]: borders, without a tail."""
        return torch.ops.comba.short_convolution(x, self.weight, None if tail is None else tail.to(x.dtype), cu_seqlens)

    def next_tail(self, x: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """The last W - 1 inputs after x."""
        return torch.cat([tail.to(x.dtype), x.detach()], dim=1)[:, x.shape[1] :]


class SwiGLU(nn.Module):
    """down(silu(gate(x)) up(x)).  [..., D] -> [..., D]"""

    def __init__(self, hidden_size: int, intermediate_size: int, device=None, dtype=None):
        super().__init__()
        options = {"bias": False, "device": device, "dtype": dtype}
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, **options)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, **options)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def positions_in_sequences(cu_seqlens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Each token's place in its own packed sequence.  [N + 1] -> [T] i64"""
    tokens = torch.arange(num_tokens, device=cu_seqlens.device)
    borders = cu_seqlens.to(torch.int64)
    sequence = torch.searchsorted(borders, tokens, right=True) - 1  # the last border at or before the token
    return tokens - borders[sequence]


def rotary_embedding(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Dims i and i + K/2 turn as a pair by the angle position theta^(-2i/K) (arXiv 2104.09864).

    x [B, H, T, K], positions [T] i64 -> [B, H, T, K]"""
    pairs = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    frequency = theta ** (torch.arange(pairs, device=x.device, dtype=wide) / -pairs)
    angle = torch.outer(positions.to(wide), frequency)
    cosine, sine = angle.cos(), angle.sin()
    first, second = x[..., :pairs], x[..., pairs:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)
