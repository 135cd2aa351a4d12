"""Times torch.ops.comba on a GPU, forward, with gradients and decode, beside the published kernels that are installed:
flash-linear-attention's Comba and Gated DeltaNet, FlashQLA, FlashInfer, and for scale PyTorch's flash attention. Those
that are not are named. Ceilings are measured in the same run: a copy in memory and a bf16 matrix product of 8192.

A row is timed once the same batch, heads and dims agree with the recurrence in float64, over fewer tokens. A time is the
median of replays of a CUDA graph over rotated buffers, L2 norm of q and k included; where a peer cannot be captured,
of the calls themselves between events. `make bench` has no GPU: `scripts/bench.py --gpu FILE` puts the results of this
program into docs/benchmarks.md.

Needs torch with CUDA and build/release/lib/libcomba_torch.so (COMBA_CUDA=ON make). Peers, for Python 3.12 beside torch
2.11 and Triton 3.6:

    pip install --no-deps --target site -r scripts/requirements-peers.txt
    export PYTHONPATH=site:site/nvidia_cutlass_dsl/dsl_packages
    python benchmarks/peers.py --json gpu.json --jobs 8

fla and FlashQLA compile for a minute or two a shape: --jobs does that beforehand for several shapes at once."""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

from gpu.cases import CLAIM_ROWS, ROWS, Row

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER_NAMES = ("fla_comba", "fla_gdn", "flash_qla", "flashinfer", "sdpa")
REPETITIONS = 24
CHECKED_TOKENS, QUICKLY_CHECKED_TOKENS = 1024, 256


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build/release/lib/libcomba_torch.so")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results there, after each row again")
    parser.add_argument("--only", default="", metavar="REGEX", help="only rows whose names it matches (--list shows them)")
    parser.add_argument("--peers", default=",".join(PEER_NAMES), metavar="NAMES", help="none, or some of %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"check over {QUICKLY_CHECKED_TOKENS} tokens, not {CHECKED_TOKENS}, and one cold start only")
    parser.add_argument("--jobs", type=int, default=0, help="processes that compile the kernels of fla and FlashQLA first")
    parser.add_argument("--resume", action="store_true", help="keep the rows that FILE of --json has, of the same GPU, and measure the others")
    parser.add_argument("--commit", help="what the results are to say; otherwise git is asked")
    parser.add_argument("--claims", action="store_true", help="the rows of comba bench claims, for python -m comba.plot_claims --peers")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--first-call", metavar="ROW", help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--by", default="comba", choices=("comba", *PEER_NAMES), help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    try:
        options.rows = [row for row in (CLAIM_ROWS if options.claims else ROWS) if re.search(options.only, row.name)]
    except re.error as error:
        parser.error(f"--only must be a regular expression; got {options.only!r}: {error}")
    if not options.rows:
        parser.error(f"--only {options.only!r} matches no row; --list prints them")
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    for name in options.peers:
        if name not in PEER_NAMES:
            parser.error(f"--peers must be none or some of {', '.join(PEER_NAMES)}; got {name!r}")
    if options.jobs < 0:
        parser.error(f"--jobs must be at least 0; got {options.jobs}")
    if options.resume and not options.json:
        parser.error("--resume needs --json FILE")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def require_library_and_gpu(library: pathlib.Path) -> None:
    if not library.exists():
        sys.exit(f"peers.py: {library} is not built: COMBA_CUDA=ON make, or name it with --library")
    import torch

    if not torch.cuda.is_available():
        sys.exit("peers.py: no GPU is visible to torch")


def in_a_process_of_its_own(options, row: Row, by: str = "comba") -> dict:
    """The first call of a row where nothing has been compiled or loaded before."""
    words = [sys.executable, __file__, "--library", options.library, "--first-call", row.name, "--by", by]
    told = subprocess.run(words, capture_output=True, text=True)
    if told.returncode != 0:
        return {"error": (told.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(told.stdout.splitlines()[-1])


def first_call(options) -> None:
    from gpu import contestants, race

    row = next(row for row in ROWS + CLAIM_ROWS if row.name == options.first_call)
    if options.by == "comba":
        contestants.load_ours(options.library)
        result = race.first_call(row, contestants.maker_of(contestants.ours, row, contestants.OUR_LEAVES))
    else:
        peer = next(peer for peer in contestants.PEERS if peer.name == options.by)
        result = race.first_call(row, contestants.maker_of(peer.call, row, peer.leaves), contestants.with_gates)
    print(json.dumps(result))


def compile_beforehand(options, peers: list) -> None:
    """Fills the compilers' caches on disk; FlashInfer has none."""
    pairs = [(row, peer) for row in options.rows for peer in peers if not peer.refusal(row) and peer.name not in ("flashinfer", "sdpa")]
    # A row with gradients compiles the kernels of the forward row, too. Other batches and lengths are only tuned again,
    # which must not happen beside other processes.
    first = {}
    for row, peer in sorted(pairs, key=lambda pair: pair[0].operator != "forward_backward"):
        case = row.case
        kind = "decode_step" if row.operator == "decode_step" else "chunks"
        first.setdefault((peer.name, kind, case.H, case.HV, case.K, case.V, kind == "chunks" and case.sequences > 1), (row, peer))
    pairs = list(first.values())
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda pair: in_a_process_of_its_own(options, pair[0], pair[1].name), pairs)
        for (row, peer), result in zip(pairs, results, strict=True):
            print(f"{peer.name}, {row.name}: {result.get('error') or 'first call ' + format(result['first_seconds'], '.1f') + ' s'}", flush=True)


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def command_of(options) -> str:
    """What gives these results anywhere: without the places of files."""
    words = ["python benchmarks/peers.py", f"--peers {','.join(options.peers) or 'none'}"]
    words += ["--quick"] if options.quick else []
    words += ["--claims"] if options.claims else []
    return " ".join(words + ([f"--only '{options.only}'"] if options.only else []))


def context(options) -> dict:
    import torch

    device = torch.cuda.get_device_properties(0)
    clocks = output_of("nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,clocks.max.sm", "--format=csv,noheader", "-i", "0")
    return {
        "device": device.name,
        "l2_bytes": device.L2_cache_size,
        "driver, SM clock, memory clock, highest SM clock": clocks,
        "program": f"torch {torch.__version__}, Python {sys.version.split()[0]}",
        "implementation": os.environ.get("COMBA_IMPL", "the library's choice"),
        "commit": options.commit or output_of("git", "describe", "--always", "--dirty"),
        "command": command_of(options),
        "date": datetime.date.today().isoformat(),
    }


def write(path: pathlib.Path | None, results: dict) -> None:
    if path:
        written = path.with_name(path.name + ".part")
        written.write_text(json.dumps(results, indent=1) + "\n")
        written.replace(path)


def line_of(row: dict) -> str:
    """What the terminal shows of a result."""
    errors = ", ".join(f"{name} {error:.5f}" for name, error in row.get("errors", {}).items())
    if "us" not in row:
        return f"{row['name']}: FAILED: {row.get('error') or 'errors ' + errors}"
    words = [f"{row['name']}: {row['us']:.1f} us ({row['p10_us']:.1f} .. {row['p90_us']:.1f}, {row['method']})"]
    words += [f"{row['bytes_per_second'] / 1e9:.0f} GB/s = {row['of_copy']:.0%} of the copy rate"]
    if "flop" in row:
        words += [f"{row['flop_per_second'] / 1e12:.0f} TFLOP/s", f"{row['times_floor']:.2f} x floor"]
    else:
        words += [f"{row['of_copy_of_same_bytes']:.0%} of a copy of the same bytes"]
    lines = [", ".join([*words, f"errors {errors}"])]
    for name, peer in row.get("peers", {}).items():
        told = peer.get("refusal") or f"{peer['us']:.1f} us ({peer['method']}), ratio {peer['ratio']:.2f}, error {peer['errors'].get('o', '-')}"
        lines.append(f"    {name}: {told}")
    return "\n".join(lines)


def resumed(results: dict, earlier: dict) -> dict:
    """What a run goes on from: the rows of an earlier one on the same GPU that had a time."""
    here, there = results["context"]["device"], earlier["context"]["device"]
    if here != there:
        sys.exit(f"peers.py: --resume needs results of this GPU, {here}; got those of {there}")
    # A peer that is missing now may have been there before.
    peers = {name: told if not told.startswith("missing") else earlier["peers"].get(name, told) for name, told in results["peers"].items()}
    rows = [row for row in earlier["rows"] if "us" in row]
    return {**results, "peers": {**earlier["peers"], **peers}, "rows": rows, "cold_starts": earlier["cold_starts"]}


def measure(options) -> dict:
    import torch

    from gpu import contestants, race, timing

    contestants.load_ours(options.library)
    status = {peer.name: peer.status() for peer in contestants.PEERS if peer.name in options.peers}
    peers = [peer for peer in contestants.PEERS if peer.name in status and not status[peer.name].startswith("missing")]
    for name, told in status.items():
        print(f"{name}: {told}")
    if options.jobs:
        compile_beforehand(options, peers)
    tokens = QUICKLY_CHECKED_TOKENS if options.quick else CHECKED_TOKENS
    ceilings = timing.ceilings()
    torch.cuda.empty_cache()
    results = {"context": context(options), "ceilings": ceilings, "peers": status, "rows": [], "cold_starts": []}
    if options.resume and options.json.exists():
        results = resumed(results, json.loads(options.json.read_text()))
        known = {row["name"] for row in results["rows"]}
        options.rows = [row for row in options.rows if row.name not in known]
    print(f"copy {ceilings['copy_bytes_per_second'] / 1e12:.2f} TB/s, bf16 product {ceilings['gemm_flop_per_second'] / 1e12:.0f} TFLOP/s")
    started = {start["name"] for start in results["cold_starts"]}
    cold = [row for row in options.rows if row.operator == "forward" and row.rule == "comba" and row.name not in started]
    for row in cold[: 0 if started else 1] if options.quick else cold:
        result = {"name": row.name, **in_a_process_of_its_own(options, row)}
        results["cold_starts"].append(result)
        print(f"cold start, {row.name}: {result.get('error') or format(result['first_seconds'] * 1e3, '.1f') + ' ms'}", flush=True)
        write(options.json, results)
    for row in options.rows:
        try:
            result = race.our_result(row, ceilings, tokens, REPETITIONS)
        except RuntimeError as error:
            result = {"name": row.name, "operator": row.operator, "rule": row.rule, "error": str(error).splitlines()[0]}
        if "us" in result:
            ours = result["us"] * 1e-6
            taking_part = [peer for peer in peers if not peer.refusal(row)]
            result["peers"] = {peer.name: race.peer_result(peer, row, ours, tokens, REPETITIONS) for peer in taking_part}
        results["rows"].append(result)
        print(line_of(result), flush=True)
        write(options.json, results)
    return results


def main() -> None:
    options = parse()
    if options.list:
        print(*(row.name for row in options.rows), sep="\n")
        return
    require_library_and_gpu(options.library)
    if options.first_call:
        first_call(options)
        return
    results = measure(options)
    if wrong := [row["name"] for row in results["rows"] if "us" not in row]:
        sys.exit(f"peers.py: {len(wrong)} of {len(results['rows'])} rows are not right: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
