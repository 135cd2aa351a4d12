"""The recurrent mixers: Comba (arXiv 2506.02475) and Gated DeltaNet (arXiv 2412.06464).

Shapes: B batch, T tokens, D model width, H key heads, HV value heads, K key dim, V value dim, W filter width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from comba.nn.layers import RMSNorm, ShortConvolution
from comba.nn.state import LayerState
from comba.ops import delta_rule, delta_rule_decode_step

# Below this, going token by token costs less than a chunk of 64.
MOST_TOKENS_ONE_BY_ONE = 16
# Its sigmoid and softplus are 0 in every dtype, and it is finite in every dtype.
CLOSED_GATE = -1e4


def draw_decay_rate(A_log: torch.Tensor, most: float = 16) -> torch.Tensor:
    """Values for A_log: exp(A_log) uniform in (0, most]. At 0 itself every gradient would be lost."""
    return ((1 - torch.rand_like(A_log, dtype=torch.float32)) * most).log()


def draw_time_step(dt_bias: torch.Tensor) -> torch.Tensor:
    """Values for dt_bias: softplus(dt_bias) log-uniform in [1e-3, 1e-1]."""
    dt = torch.empty_like(dt_bias, dtype=torch.float32).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return dt + (-torch.expm1(-dt)).log()


class DeltaRuleMixer(nn.Module):
    """What both mixers share:

        q, k, v = silu(conv(x W_q, x W_k, x W_v));   o = delta_rule(q, k, v, ...);   y = (norm(o) f(x W_g)) W_o

    Parameters: {q,k,v,b,a,g,o}_proj.weight, {q,k,v}_conv1d.weight, A_log [HV], dt_bias [HV], o_norm.weight [V].
    State: the tails of the convolutions, q, k and v [B, W - 1, channels], and `recurrent` [B, HV, K, V] fp32.
    """

    rule = "comba"
    convention = "paper"
    beta_scale = 1.0
    gate_function = "sigmoid"

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        *,
        num_v_heads: int | None = None,
        expand_v: float = 1.0,
        conv_size: int = 4,
        use_short_conv: bool = True,
        use_output_gate: bool = True,
        norm_eps: float = 1e-5,
        device=None,
        dtype=None,
    ):
        super().__init__()
        num_v_heads = num_heads if num_v_heads is None else num_v_heads
        head_v_dim = round(head_dim * expand_v)
        if num_heads < 1 or num_v_heads < 1 or num_v_heads % num_heads:
            raise self._error("num_v_heads must be a multiple of num_heads", f"{num_v_heads} and {num_heads}")
        if head_dim * expand_v != head_v_dim:
            raise self._error("head_dim * expand_v must be a whole number", f"{head_dim} * {expand_v}")
        for name, dim in (("head_dim", head_dim), ("head_dim * expand_v", head_v_dim)):
            if not 1 <= dim <= 256:
                raise self._error(f"{name} must be from 1 to 256", dim)
        self.num_heads, self.num_v_heads = num_heads, num_v_heads
        self.head_dim, self.head_v_dim = head_dim, head_v_dim
        key_size, value_size = num_heads * head_dim, num_v_heads * head_v_dim
        options = {"device": device, "dtype": dtype}

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=False, **options)

        self.q_proj = linear(hidden_size, key_size)
        self.k_proj = linear(hidden_size, key_size)
        self.v_proj = linear(hidden_size, value_size)
        self.b_proj = linear(hidden_size, num_v_heads)
        self.a_proj = linear(hidden_size, num_v_heads)
        self.A_log = nn.Parameter(torch.empty(num_v_heads, **options))
        self.dt_bias = nn.Parameter(torch.empty(num_v_heads, **options))
        self.q_conv1d = ShortConvolution(key_size, conv_size, **options) if use_short_conv else None
        self.k_conv1d = ShortConvolution(key_size, conv_size, **options) if use_short_conv else None
        self.v_conv1d = ShortConvolution(value_size, conv_size, **options) if use_short_conv else None
        self.g_proj = linear(hidden_size, value_size) if use_output_gate else None
        self.o_norm = RMSNorm(head_v_dim, norm_eps, gate_function=self.gate_function, **options)
        self.o_proj = linear(value_size, hidden_size)

    def _error(self, rule: str, value) -> ValueError:
        return ValueError(f"[{type(self).__name__}] {rule}; got {value}")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The rates of decay as the paper draws them; linear maps and convolutions are drawn by their own modules."""
        self.A_log.copy_(draw_decay_rate(self.A_log))
        self.dt_bias.copy_(draw_time_step(self.dt_bias))

    def initial_state(self, batch: int) -> LayerState:
        """What the layer remembers before the first token of `batch` streams."""
        convolutions = {"q": self.q_conv1d, "k": self.k_conv1d, "v": self.v_conv1d}
        tails = {name: each.initial_tail(batch) for name, each in convolutions.items() if each is not None}
        shape = (batch, self.num_v_heads, self.head_dim, self.head_v_dim)
        return LayerState(**tails, recurrent=self.A_log.new_zeros(shape, dtype=torch.float32))

    def forward(
        self,
        x: torch.Tensor,
        state: LayerState | None = None,
        mask: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]

        state: of initial_state(), read and advanced by T tokens; no gradient flows from one call to the next.
        mask [B, T] bool: False for padding, which leaves the state as it is (beta = 0, g = 0). Its outputs mean
            nothing. A state that goes on needs it on the left.
        cu_seqlens [N + 1]: borders of packed sequences, B = 1, without state and mask.
        """
        if cu_seqlens is not None and (len(x) != 1 or state is not None or mask is not None):
            raise self._error("cu_seqlens needs B = 1, and neither state nor mask", f"B = {len(x)}")
        if mask is not None:
            x = x * mask[..., None]  # The convolutions read zeros there, as they do before a sequence.
        q = self._project("q", x, state, cu_seqlens).unflatten(-1, (self.num_heads, self.head_dim))  # [B, T, H, K]
        k = self._project("k", x, state, cu_seqlens).unflatten(-1, (self.num_heads, self.head_dim))  # [B, T, H, K]
        v = self._project("v", x, state, cu_seqlens).unflatten(-1, (self.num_v_heads, self.head_v_dim))  # [B, T, HV, V]
        beta_logit, a = self.b_proj(x), self.a_proj(x)  # [B, T, HV]
        if mask is not None:
            beta_logit, a = (gate.masked_fill(~mask[..., None], CLOSED_GATE) for gate in (beta_logit, a))
        # The operator computes rates and strengths in fp32 in a 16-bit model too.
        gates = {"beta_logit": beta_logit, "a": a, "A_log": self.A_log, "dt_bias": self.dt_bias, **self._feedback()}
        o = self._delta_rule(q, k, v, gates, state, cu_seqlens)  # [B, T, HV, V]
        if state is not None:
            state.position += x.shape[1]
        gate = self.g_proj(x).view_as(o) if self.g_proj is not None else None
        return self.o_proj(self.o_norm(o, gate).flatten(2))

    def _project(self, name: str, x: torch.Tensor, state: LayerState | None, cu_seqlens) -> torch.Tensor:
        """q, k or v: projection, convolution, SiLU."""
        projected = getattr(self, f"{name}_proj")(x)
        convolution = getattr(self, f"{name}_conv1d")
        if convolution is None:
            return F.silu(projected)
        if state is None:
            return convolution(projected, cu_seqlens=cu_seqlens)
        tail = state[name]
        state[name] = convolution.next_tail(projected, tail)
        return convolution(projected, tail)

    def _feedback(self) -> dict[str, torch.Tensor]:
        """The operator's b and d, [H] each, where there are any."""
        return {}

    def _delta_rule(self, q, k, v, gates: dict, state: LayerState | None, cu_seqlens) -> torch.Tensor:
        options = {"rule": self.rule, "convention": self.convention, "beta_scale": self.beta_scale}
        if state is None:
            return delta_rule(q, k, v, **gates, cu_seqlens=cu_seqlens, **options)[0]
        if not torch.is_grad_enabled() and q.shape[1] <= MOST_TOKENS_ONE_BY_ONE:
            return delta_rule_decode_step(q, k, v, state["recurrent"], **gates, **options)
        o, final_state = delta_rule(q, k, v, **gates, initial_state=state["recurrent"], output_final_state=True, **options)
        state["recurrent"] = final_state.detach()
        return o


class Comba(DeltaRuleMixer):
    """The Comba layer. Beside the parameters of DeltaRuleMixer: D [H] (output correction d), decay [H] (b = sigmoid).

    Args:
        hidden_size: D.  num_heads: H.  head_dim: K, at most 256.
        num_v_heads: HV, a multiple of H; default H.  expand_v: V / K.  conv_size: W.
        use_short_conv: False: SiLU alone.  use_output_gate: False: the norm alone.
        use_output_correction: q - d k; False: no D.  use_inner_decay: b = sigmoid(decay); False: b = 1, no decay.
        correction_factor: d at the start.  learn_correction_factor: False: D has no gradient.
        convention: "paper" (b k is fed back) or "fla" (flash-linear-attention's: see include/comba/delta_rule.h).
        rule: "splr" (correct, then decay) or "iplr" (decay, then correct, with beta up to 2).
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        *,
        use_output_correction: bool = True,
        use_inner_decay: bool = True,
        correction_factor: float = 1.0,
        learn_correction_factor: bool = True,
        convention: str = "paper",
        rule: str = "splr",
        device=None,
        dtype=None,
        **sizes,
    ):
        super().__init__(hidden_size, num_heads, head_dim, device=device, dtype=dtype, **sizes)
        if convention not in ("paper", "fla"):
            raise self._error("convention must be paper or fla", convention)
        if rule not in ("splr", "iplr"):
            raise self._error("rule must be splr or iplr", rule)
        self.convention = convention
        self.rule, self.beta_scale = ("comba", 1.0) if rule == "splr" else ("gated_delta", 2.0)
        self.correction_factor = correction_factor
        self.learn_correction_factor = learn_correction_factor

        def per_head(wanted: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype)) if wanted else None

        self.D = per_head(use_output_correction)
        self.decay = per_head(use_inner_decay)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.D is not None:
            self.D.fill_(self.correction_factor)
        if self.decay is not None:
            self.decay.fill_(1)

    def _feedback(self) -> dict[str, torch.Tensor]:
        feedback = {}
        if self.decay is not None:
            feedback["b"] = self.decay.float().sigmoid()
        if self.D is not None:
            feedback["d"] = self.D if self.learn_correction_factor else self.D.detach()
        return feedback


class GatedDeltaNet(DeltaRuleMixer):
    """The Gated DeltaNet layer: decay before correction, the query as it is, full feedback, SiLU on the output gate.

    allow_neg_eigval: beta up to 2. The other arguments and the parameters are those of Comba, without D and decay.
    """

    rule = "gated_delta"
    gate_function = "silu"

    def __init__(
        self, hidden_size: int, num_heads: int, head_dim: int, *, allow_neg_eigval: bool = False, device=None, dtype=None, **sizes
    ):
        super().__init__(hidden_size, num_heads, head_dim, device=device, dtype=dtype, **sizes)
        self.beta_scale = 2.0 if allow_neg_eigval else 1.0
        self.reset_parameters()
