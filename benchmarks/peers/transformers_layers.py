"""Times the Gated DeltaNet layers of transformers on CPU, as they are and after comba.patch_transformers(), in turns in
one process: prefill, training and decode of one layer of each model, at the sizes of the published ones. "without
projections" is the same layer whose linear maps are given: what patching is about.

Writes JSON; fails after that if prefill or training without projections is less than 3 or 5 times as fast."""

import argparse
import importlib
import json
import pathlib
import statistics
import sys

import torch
import transformers
from timing import seconds_of_a_call
from torch import nn
from transformers import AutoConfig, DynamicCache

import comba

TOKENS = 1024
LAYERS = {  # model type, sizes that are not the configuration's defaults
    "Qwen3-Next-80B-A3B": ("qwen3_next", {}),
    "Qwen3.5-9B": ("qwen3_5_text", {}),
    "OLMo-Hybrid-7B": ("olmo_hybrid", {}),
}
FLOORS = {"prefill": 3.0, "training": 5.0}


class Given(nn.Module):
    """In place of a linear map: what it would have given."""

    def __init__(self, linear: nn.Linear, tokens: int):
        super().__init__()
        self.result = nn.Parameter(torch.randn(1, tokens, linear.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.result


def layer_of(model_type: str, sizes: dict, tokens: int | None) -> tuple[nn.Module, AutoConfig]:
    """A first layer with random weights; for `tokens` tokens without its linear maps, or None: with them."""
    config = AutoConfig.for_model(model_type, **sizes)
    name = model_type.removesuffix("_text")
    modeling = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    (layer_type,) = [value for key, value in vars(modeling).items() if key.endswith("GatedDeltaNet")]
    layer = layer_type(config, 0)
    if tokens is not None:
        output = "o_proj" if hasattr(layer, "o_proj") else "out_proj"
        for key, child in list(layer.named_children()):
            if isinstance(child, nn.Linear):
                setattr(layer, key, nn.Identity() if key == output else Given(child, tokens))
    return layer, config


def prefill(layer: nn.Module, config: AutoConfig):
    x = torch.randn(1, TOKENS, config.hidden_size)

    @torch.no_grad()
    def call():
        layer(x)

    return call


def training(layer: nn.Module, config: AutoConfig):
    x = torch.randn(1, TOKENS, config.hidden_size)
    wanted = list(layer.parameters())
    with torch.no_grad():
        cotangent = torch.randn_like(layer(x))

    def call():
        torch.autograd.grad(layer(x), wanted, cotangent)

    return call


def decode(layer: nn.Module, config: AutoConfig):
    cache, x = DynamicCache(config=config), torch.randn(1, 1, config.hidden_size)

    @torch.no_grad()
    def call():
        layer(x, cache_params=cache)

    call()
    return call


def measure(kind, whole: bool, model_type: str, sizes: dict, repetitions: int, min_seconds: float) -> dict:
    layer, config = layer_of(model_type, sizes, None if whole else 1 if kind is decode else TOKENS)
    call = kind(layer, config)
    theirs, ours = [], []
    call()
    with comba.patch_transformers():
        call()
    for _ in range(repetitions):
        theirs.append(seconds_of_a_call(call, min_seconds))
        with comba.patch_transformers():
            ours.append(seconds_of_a_call(call, min_seconds))
    return {"transformers": theirs, "comba": ours, "ratio": statistics.median(theirs) / statistics.median(ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--min-seconds", type=float, default=0.2)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()

    rows = []
    for name, (model_type, sizes) in LAYERS.items():
        for kind in (prefill, training, decode):
            for whole in (False, True):
                row = {"model": name, "kind": kind.__name__, "whole": whole, "tokens": 1 if kind is decode else TOKENS}
                rows.append(row | measure(kind, whole, model_type, sizes, options.repetitions, options.min_seconds))
                print(f"{name} {kind.__name__}{'' if whole else ' without projections'}: {rows[-1]['ratio']:.2f} x", flush=True)
    a, b = torch.randn(2, 2048, 2048)
    context = {
        "program": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "sgemm_seconds": [seconds_of_a_call(lambda: a @ b, options.min_seconds) for _ in range(options.repetitions)],
    }
    options.json.write_text(json.dumps({"context": context, "rows": rows}, indent=1) + "\n")
    slow = [r for r in rows if not r["whole"] and r["ratio"] < FLOORS.get(r["kind"], 0)]
    if slow:
        sys.exit("; ".join(f"{r['model']} {r['kind']} is {r['ratio']:.2f} times as fast, not {FLOORS[r['kind']]}" for r in slow))


if __name__ == "__main__":
    main()
