"""The parts of docs/benchmarks.md on whole models on GPUs, from the files that `comba bench train`, `comba bench decode`,
benchmarks/train_peers.py and benchmarks/scaling.py write, and the picture of how two GPUs spend a step."""

import pathlib

KINDS = {"compute": ("compute", "#0072b2"), "exchange": ("exchange (NCCL)", "#d55e00")}


def _floor(part: dict) -> str:
    return f"{part['floor_seconds'] * 1e3:.1f}" if "floor_seconds" in part else ""


def training_section(runs: list[dict]) -> list[str]:
    lines = ["\n## Training on a GPU\n", "Made by `comba bench train --breakdown --json`: [training-gpu.json](benchmarks/training-gpu.json). bf16 with fp32 weights, fused AdamW, "
             "random tokens; the share is of the GPU's bf16 peak by its data sheet.\n",
             "| model, sequences x tokens, passes a step | tokens/s | ms a step (p10 .. p90) | share of peak | memory, GiB | first step, s |",
             "|---|---:|---:|---:|---:|---:|"]
    for run in runs:
        context, seconds = run["context"], sorted(run["step_seconds"])
        passes = context["batch_size"] // (context["micro_batch_size"] or context["batch_size"])
        tenth, last = seconds[len(seconds) // 10], seconds[-1 - len(seconds) // 10]
        lines.append(f"| {context['model'].removesuffix('.json')}, {context['batch_size']} x {context['context_length']}, {passes} | {run['tokens_per_second']:,.0f} | "
                     f"{run['median_step_seconds'] * 1e3:.1f} ({tenth * 1e3:.1f} .. {last * 1e3:.1f}) | {run['of_peak']:.1%} | "
                     f"{run['peak_memory_bytes'] / 2**30:.1f} | {run['first_step_seconds']:.2f} |")
    for run in runs:
        if "breakdown" not in run:
            continue
        passes = run["context"]["batch_size"] // (run["context"]["micro_batch_size"] or run["context"]["batch_size"])
        lines += [f"\nWhere the step of {run['context']['model'].removesuffix('.json')} goes, {passes} {'pass' if passes == 1 else 'passes'} a step ({run['context']['device']}):\n",
                  "| kernels | ms | floor, ms | launches |", "|---|---:|---:|---:|"]
        lines += [f"| {part['class']} | {part['seconds'] * 1e3:.1f} | {_floor(part)} | {part['runs']:.0f} |" for part in run["breakdown"] if part["runs"]]
    return lines


PEER_PROGRAMS = {
    "fla_comba": "flash-linear-attention, CombaForCausalLM",
    "compiled_transformer": "transformer in PyTorch, torch.compile",
}


def train_peers_section(results: dict) -> list[str]:
    context, mine = results["context"], results["rows"][0]
    missing = "".join(f" Missing: {PEER_PROGRAMS[name]} ({why})." for name, why in results["missing"].items())
    lines = ["\n## Training beside other programs\n", f"Made by `benchmarks/train_peers.py` ([train-peers-gpu.json](benchmarks/train-peers-gpu.json)): {context['device']}, torch {context['torch']}, "
             f"{context['date']}, commit {context['commit'][:10]}; {context['model'].removesuffix('.json')}, {context['batch_size']} x {context['context_length']} tokens a step, one program after the other. "
             f"The peers' weights are bf16 without fp32 ones, which moves fewer bytes; their first step counts from the start of the process.{missing}\n",
             "| program | tokens/s | comba in one pass / it | ms a step | memory, GiB | first step, s |", "|---|---:|---:|---:|---:|---:|"]
    for row in results["rows"]:
        name = f"comba, {row['passes']} {'pass' if row['passes'] == 1 else 'passes'} a step" if row["name"] == "comba" else f"{PEER_PROGRAMS[row['name']]} {row['version']}"
        lines.append(f"| {name} | {row['tokens_per_second']:,.0f} | {row['median_step_seconds'] / mine['median_step_seconds']:.2f} | {row['median_step_seconds'] * 1e3:.1f} | "
                     f"{row['peak_memory_bytes'] / 2**30:.1f} | {row['first_step_seconds']:.1f} |")
    return lines


def decode_section(results: dict) -> list[str]:
    copy = results["ceilings"]["copy_bytes_per_second"]
    lines = ["\n## Decoding on a GPU\n", f"Made by `comba bench decode --json`: [decode-gpu.json](benchmarks/decode-gpu.json), {pathlib.Path(results['context']['model']).stem}, bf16 weights. "
             f"The floor reads each weight once and reads and writes each state once, at the {copy / 1e12:.2f} TB/s of a copy in the same run.\n",
             "| texts | states | ms a token | tokens/s | floor, ms | of its rate |", "|---:|---|---:|---:|---:|---:|"]
    lines += [f"| {row['batch_size']} | {row['state_dtype']} | {row['ms']:.3f} | {row['tokens_per_second']:,.0f} | {row['floor_ms']:.3f} | {row['of_floor']:.0%} |" for row in results["decode"]]
    if prompt := results.get("prefill"):
        lines.append(f"\nA prompt of {prompt['tokens']} tokens, {prompt['chunk']} at a time: {prompt['ms']:.1f} ms, {prompt['ms'] / prompt['products_ms']:.2f} x its matrix products alone.")
    return lines


def scaling_section(results: dict) -> list[str]:
    context, equality, killed = results["context"], results["equality"], results["killed"]
    lines = ["\n## Several GPUs\n", f"Made by `benchmarks/scaling.py` ([scaling-gpu.json](benchmarks/scaling-gpu.json)): {context['device']}, {context['config'].removesuffix('.toml')}, "
             f"{context['sequences_a_process']} sequences of 2048 tokens a GPU, {context['steps']} steps, {context['date']}, commit {context['commit']}. Exposed is the share of the step "
             "beyond that of one GPU, whose work is in CUDA graphs; of it, `only exchange` is when the GPU does nothing else.\n",
             "| GPUs | | tokens/s | of one | ms a step | exposed | only exchange, ms a step | memory, GiB |", "|---:|---|---:|---:|---:|---:|---:|---:|"]
    for row in results["rows"]:
        idle = f"{row['timeline']['only_exchange_ms'] / row['timeline']['steps']:.1f}" if "timeline" in row else ""
        memory = f"{row['peak_memory_gib']:.1f}" if row["peak_memory_gib"] else ""
        lines.append(f"| {row['processes']} | {row['stage']} | {row['tokens_per_second']:,.0f} | {row['of_one']:.2f} | {row['step_seconds'] * 1e3:.1f} | {row['exposed']:.1%} | {idle} | {memory} |")
    lines += ["\n![Two steps on two GPUs](benchmarks/scaling-gpu.png)\n",
              f"20 steps of a small model on {results['rows'][-1]['processes']} GPUs against one, same sequences: losses differ by at most {equality['greatest_difference_of_loss']:.1e}; two runs "
              f"{'have the same bits' if equality['repeats_its_bits'] else 'DIFFER'}, and so {'has' if equality['resumed_has_the_same_bits'] else 'has NOT'} one that was interrupted and resumed. "
              f"Half of the steps on one kind and half on the other: {equality['difference_resumed_on_one']:.1e} (then one) and {equality['difference_resumed_on_several']:.1e} (then several). "
              f"When a process was killed, the others ended after {killed['seconds']:.1f} s with {len(killed['messages'])} message, and the run went on from its checkpoint."]
    return lines


def draw_scaling(results: dict, path: pathlib.Path) -> None:
    """Two steps of each way to share the work, rank 0: when it computes and when it exchanges."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in results["rows"] if "timeline" in row]
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 1.1 * len(rows) + 1), sharex=True, squeeze=False)
    for axis, row in zip(axes[:, 0], rows, strict=True):
        for height, (kind, (name, color)) in enumerate(KINDS.items()):
            spans = row["timeline"]["spans"][kind]
            axis.broken_barh([(first, last - first) for first, last in spans], (1 - height, 0.8), color=color, label=name)
        axis.set_yticks([])
        axis.set_ylabel(row["stage"], rotation=0, ha="right", va="center")
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[-1, 0].set_xlabel("ms, two steps on the first of two GPUs")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=2, frameon=False, loc="upper right")
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, dpi=160)
    plt.close(figure)
