"""Times training steps of the model of configs/demo.toml, built as one would in plain PyTorch: torch.nn modules,
torch.optim.AdamW, and for the operator the fallback of the PyPI package transformers (models.qwen3_next). Transformers
has no Comba rule: its gated delta rule, of as many FLOP, reads the query that Comba corrects.

Prints one JSON object: seconds of each step, seconds of a matrix product of 2048, and the FLOP of a step."""

import argparse
import json
import time
import tomllib

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule


class Convolution(nn.Module):
    """Causal and depthwise, with SiLU."""

    def __init__(self, channels: int, width: int = 4):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, width, groups=channels, padding=width - 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, T, channels]
        return F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))


class Mixer(nn.Module):
    def __init__(self, hidden: int, heads: int, head_dim: int):
        super().__init__()
        self.shape = (heads, head_dim)
        size = heads * head_dim
        self.q, self.k, self.v, self.gate = (nn.Linear(hidden, size, bias=False) for _ in range(4))
        self.b, self.a = (nn.Linear(hidden, heads, bias=False) for _ in range(2))
        self.o = nn.Linear(size, hidden, bias=False)
        self.q_conv, self.k_conv, self.v_conv = (Convolution(size) for _ in range(3))
        self.A_log, self.dt_bias = nn.Parameter(torch.zeros(heads)), nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.full((heads,), 0.02))
        self.norm = nn.RMSNorm(head_dim, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def heads_of(y):
            return y.unflatten(2, self.shape)  # [B, T, H, D]

        q, k, v = heads_of(self.q_conv(self.q(x))), heads_of(self.k_conv(self.k(x))), heads_of(self.v_conv(self.v(x)))
        g = -self.A_log.exp() * F.softplus(self.a(x) + self.dt_bias)
        q = q - self.D[:, None] * k
        o, _ = torch_chunk_gated_delta_rule(q, k, v, g, self.b(x).sigmoid(), chunk_size=64, use_qk_l2norm_in_kernel=True)
        return self.o((self.norm(o) * heads_of(self.gate(x)).sigmoid()).flatten(2))


class MLP(nn.Module):
    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.gate, self.up = (nn.Linear(hidden, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Model(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        hidden, layers = config["hidden_size"], range(config["num_hidden_layers"])
        self.embeddings = nn.Embedding(config["vocab_size"], hidden)
        self.mixers = nn.ModuleList(Mixer(hidden, config["num_heads"], config["head_dim"]) for _ in layers)
        self.mlps = nn.ModuleList(MLP(hidden, config["intermediate_size"]) for _ in layers)
        self.mixer_norms, self.mlp_norms = (nn.ModuleList(nn.RMSNorm(hidden, eps=1e-6) for _ in layers) for _ in range(2))
        self.norm = nn.RMSNorm(hidden, eps=1e-6)
        self.head = nn.Linear(hidden, config["vocab_size"], bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embeddings(ids)
        for mixer, mlp, mixer_norm, mlp_norm in zip(self.mixers, self.mlps, self.mixer_norms, self.mlp_norms):
            x = x + mixer(mixer_norm(x))
            x = x + mlp(mlp_norm(x))
        return self.head(self.norm(x))


def flop_of_a_step(model: Model, config: dict, tokens: int) -> float:
    """Matrix products and the operator's chunk form, forward and backward; what is elementwise does not count."""
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    dim = config["head_dim"]
    operator = config["num_hidden_layers"] * config["num_heads"] * (20 * dim**2 + 28 * 64 * dim)
    return tokens * (6.0 * weights + operator)


def sgemm_seconds() -> float:
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    start = time.perf_counter()
    for _ in range(5):
        a @ b
    return (time.perf_counter() - start) / 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=argparse.FileType("rb"), required=True, help="a run file as configs/demo.toml")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    run = tomllib.load(options.config)
    config, batch = run["model"], (run["train"]["batch_size"], run["train"]["context_length"])

    torch.manual_seed(1)
    model = Model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    seconds = []
    for _ in range(options.steps + 1):
        windows = torch.randint(0, 256, (batch[0], batch[1] + 1))
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    result = {
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "flop": flop_of_a_step(model, config, batch[0] * batch[1]),
        "tokens": batch[0] * batch[1],
        "seconds": seconds[1:],  # the first one allocates
        "sgemm_seconds": sgemm_seconds(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
