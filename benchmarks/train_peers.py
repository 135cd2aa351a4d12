"""Times training steps of whole models on a GPU, one after the other: `comba bench train`, flash-linear-attention's
CombaForCausalLM of the same sizes, and a transformer of as many parameters in plain PyTorch under torch.compile.

    python benchmarks/train_peers.py --json train-peers.json

Each is a process of its own: random tokens, bf16 products, fused AdamW, gradients clipped to a norm of 1. The peers keep
their weights in bf16 and have no fp32 ones, which moves fewer bytes than what comba does. A peer that is not installed,
or fails, is named with its reason. `scripts/bench.py --train-peers FILE` puts the results into docs/benchmarks.md. What to
install for flash-linear-attention, scripts/requirements-peers.txt tells; it compiles for minutes."""

import argparse
import datetime
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ("fla_comba", "compiled_transformer")
VERSIONS = {"fla_comba": "flash-linear-attention", "compiled_transformer": "torch"}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/bin/comba-bench")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "configs/comba-340m.json", help="config.json for comba and flash-linear-attention")
    parser.add_argument("--transformer", type=pathlib.Path, default=ROOT / "configs/transformer-340m.json", help="config.json of the transformer")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences a step (default 16)")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="of comba's second row, sequences a pass (default 8)")
    parser.add_argument("--context-length", type=int, default=2048, help="tokens a sequence (default 2048)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (default 20)")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAMES", help="none, or some of %(default)s")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a peer may take (default 600)")
    parser.add_argument("--commit", default="", help="what the results are to say")
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)  # the process of a peer
    options = parser.parse_args(words)
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    if unknown := [name for name in options.peers if name not in PEERS]:
        parser.error(f"--peers takes some of {', '.join(PEERS)}; got {unknown[0]}")
    if options.steps < 1 or options.batch_size < 1 or options.context_length < 2:
        parser.error("--steps and --batch-size must be at least 1, --context-length at least 2")
    for path in (options.model, options.transformer, *([] if options.one else [options.program])):
        if not path.exists():
            parser.error(f"there is no {path}")
    return options


def fla_comba(config: dict):
    from fla.models import CombaConfig, CombaForCausalLM

    names = (
        "hidden_size num_hidden_layers intermediate_size vocab_size norm_eps initializer_range tie_word_embeddings num_heads num_v_heads head_dim expand_v "
        "conv_size use_short_conv use_output_gate use_output_correction use_inner_decay correction_factor"
    ).split()
    model = CombaForCausalLM(CombaConfig(**{name: config[name] for name in names}, use_cache=False))
    return model, lambda ids: model(input_ids=ids, labels=ids).loss


def compiled_transformer(config: dict):
    """As Llama: RMSNorm, rotary positions, attention of SDPA, SwiGLU."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    hidden, heads, eps = config["hidden_size"], config["num_heads"], config["norm_eps"]
    dim = hidden // heads

    def rotated(x, angles):  # [B, H, T, dim]
        first, second = x.chunk(2, -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mlp_norm = nn.RMSNorm(hidden, eps=eps), nn.RMSNorm(hidden, eps=eps)
            self.qkv, self.o = nn.Linear(hidden, 3 * hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
            self.gate_up = nn.Linear(hidden, 2 * config["intermediate_size"], bias=False)
            self.down = nn.Linear(config["intermediate_size"], hidden, bias=False)

        def forward(self, x, angles):
            q, k, v = (y.unflatten(2, (heads, dim)).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
            y = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).flatten(2))
            gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
            return x + self.down(F.silu(gate) * up)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Embedding(config["vocab_size"], hidden)
            self.blocks = nn.ModuleList(Block() for _ in range(config["num_hidden_layers"]))
            self.norm, self.head = nn.RMSNorm(hidden, eps=eps), nn.Linear(hidden, config["vocab_size"], bias=False)
            self.head.weight = self.embeddings.weight
            for weight in self.parameters():
                if weight.dim() == 2:
                    nn.init.normal_(weight, std=config["initializer_range"])

        def forward(self, ids):
            positions = torch.arange(ids.shape[1], device=ids.device)
            angles = torch.outer(positions, config["rope_theta"] ** (-torch.arange(0, dim, 2, device=ids.device) / dim))
            x = self.embeddings(ids)
            for block in self.blocks:
                x = block(x, angles)
            logits = self.head(self.norm(x))[:, :-1]
            return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    model = Transformer()
    return model, torch.compile(model)


def train(options) -> dict:
    """Steps of one peer, in this process."""
    start = time.perf_counter()
    import torch

    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    config = json.loads((options.transformer if options.one == "compiled_transformer" else options.model).read_text())
    model, loss_of = {"fla_comba": fla_comba, "compiled_transformer": compiled_transformer}[options.one](config)
    model.to(device=options.device, dtype=torch.bfloat16).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    on_gpu = options.device == "cuda"
    times = []
    for step in range(options.steps + 5):
        ids = torch.randint(0, config["vocab_size"], (options.batch_size, options.context_length), device=options.device)
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        loss = loss_of(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        if step == 0:
            first = time.perf_counter() - start
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "step_seconds": times[5:],
        "first_step_seconds": first,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
        "loss": loss.item(),
        "version": importlib.metadata.version(VERSIONS[options.one]),
    }


def row_of_comba(options, micro_batch_size: int) -> tuple[dict, str]:
    """And the name of the device."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "train.json")
        command = [options.program, "train", "--model", options.model, "--device", options.device, "--batch-size", options.batch_size]
        command += ["--micro-batch-size", micro_batch_size, "--context-length", options.context_length, "--steps", options.steps, "--json", file]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        told = json.loads(file.read_text())
    kept = {name: told[name] for name in ("step_seconds", "first_step_seconds", "peak_memory_bytes", "loss")}
    return {"name": "comba", "passes": -(-options.batch_size // micro_batch_size), **kept}, told["context"]["device"]


def main() -> None:
    options = parse()
    if options.one:
        print(json.dumps(train(options)))
        return
    import torch

    sizes = {"batch_size": options.batch_size, "context_length": options.context_length, "model": options.model.name, "transformer": options.transformer.name}
    results = {
        "context": {"torch": torch.__version__, "date": datetime.date.today().isoformat(), "commit": options.commit, **sizes},
        "rows": [], "missing": {},
    }  # fmt: skip

    def keep(row: dict) -> None:
        row["step_seconds"].sort()
        row["median_step_seconds"] = row["step_seconds"][len(row["step_seconds"]) // 2]
        row["tokens_per_second"] = options.batch_size * options.context_length / row["median_step_seconds"]
        results["rows"].append(row)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{row['name']}: {row['tokens_per_second']:,.0f} tokens/s, {row['peak_memory_bytes'] / 2**30:.1f} GiB, first step after {row['first_step_seconds']:.1f} s", flush=True)

    for micro_batch_size in sorted({options.batch_size, min(options.batch_size, options.micro_batch_size)}, reverse=True):
        row, results["context"]["device"] = row_of_comba(options, micro_batch_size)
        keep(row)
    for name in options.peers:
        told = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--one", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, errors = told.communicate(timeout=options.timeout)
            if told.returncode != 0:
                raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else f"exit code {told.returncode}")
            keep({"name": name, **json.loads(output.strip().splitlines()[-1])})
        except (RuntimeError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            told.kill()
            results["missing"][name] = str(error)
            print(f"{name} is missing: {error}", flush=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
