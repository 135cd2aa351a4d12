"""Times the gated delta rule of the PyPI package transformers (models.qwen3_next) on CPU, as `comba bench operator`
times ours: the same shapes, medians of the same number of repetitions, the same ceilings measured in the same process.
Writes the same JSON."""

import argparse
import json
import pathlib
import statistics

import torch
import transformers
from timing import seconds_of_a_call
from transformers.models.qwen3_next.modeling_qwen3_next import (
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)


def inputs(batch: int, tokens: int, heads: int, dim: int) -> dict:
    q, k, v = (torch.randn(batch, tokens, heads, dim) for _ in range(3))
    return dict(query=q, key=k, value=v, g=-torch.rand(batch, tokens, heads), beta=torch.rand(batch, tokens, heads))


def forward(batch: int, tokens: int, heads: int, dim: int):
    x = inputs(batch, tokens, heads, dim)

    @torch.no_grad()
    def call():
        torch_chunk_gated_delta_rule(**x, chunk_size=64, use_qk_l2norm_in_kernel=True)

    return call


def training(batch: int, tokens: int, heads: int, dim: int):
    x = {name: tensor.requires_grad_() for name, tensor in inputs(batch, tokens, heads, dim).items()}
    d_o = torch.randn(batch, tokens, heads, dim)

    def call():
        o, _ = torch_chunk_gated_delta_rule(**x, chunk_size=64, use_qk_l2norm_in_kernel=True)
        torch.autograd.grad(o, list(x.values()), d_o)

    return call


def decode(batch: int, heads: int, dim: int):
    x = inputs(batch, 1, heads, dim)
    state = torch.full((batch, heads, dim, dim), 0.01)

    @torch.no_grad()
    def call():
        torch_recurrent_gated_delta_rule(
            **x, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True
        )

    return call


def sgemm(size: int):
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: a @ b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--min-seconds", type=float, default=0.3)
    options = parser.parse_args()

    calls = {
        "sgemm 2048": sgemm(2048),
        "forward gated_delta f32 B1 T2048 H16 D128": forward(1, 2048, 16, 128),
        "forward+backward gated_delta f32 B1 T2048 H16 D128": training(1, 2048, 16, 128),
        "decode_step gated_delta f32 B8 T1 H16 D128, 8 MiB of state": decode(8, 16, 128),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repetitions):
        for name, call in calls.items():
            call()
            seconds[name].append(seconds_of_a_call(call, options.min_seconds))
    context = {"program": f"transformers {transformers.__version__}, torch {torch.__version__}", "threads": torch.get_num_threads()}
    rows = [{"name": n, "seconds": s, "median_seconds": statistics.median(s)} for n, s in seconds.items()]
    options.json.write_text(json.dumps({"context": context, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
