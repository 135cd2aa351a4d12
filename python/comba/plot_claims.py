"""A table and a picture of comba bench claims: python -m comba.plot_claims CLAIMS.json [--peers PEERS.json] [--out picture.png]

Comba beside Gated DeltaNet and softmax attention, forward, backward and both, over the length of the sequence. The
table (--table FILE, else to standard output) is in Markdown and has what the paper reports at 16,384 tokens. --peers
adds what benchmarks/peers.py --claims has measured of published kernels at the same shapes. Pictures need the package
matplotlib; --table alone does not.
"""

import pathlib
import statistics
import sys

from comba import _plot_program, _plot_style

NAMES = {"comba": "Comba", "gated_delta": "Gated DeltaNet", "attention": "softmax attention"}
PEERS = {"fla_comba": "Comba (fla)", "fla_gdn": "Gated DeltaNet (fla)"}
PASSES = ("forward", "backward", "both")
# arXiv 2506.02475: milliseconds at 16,384 tokens, on its GPU, of the kernels of that time.
PAPER = {"forward": {"comba": 13.4, "gated_delta": 19.3}, "both": {"comba": 58.5, "gated_delta": 65.6}}

Times = dict[tuple[int, int], dict[str, dict[str, float]]]  # by (D, T), pass and contestant: milliseconds


def times_of(claims: dict) -> Times:
    times: Times = {}
    for row in claims["rows"]:
        found = times.setdefault((row["D"], row["T"]), {name: {} for name in PASSES})
        if "us" in row:
            # What else happens on a GPU can only add to a time.
            found[row["pass"]][row["contestant"]] = min(row.get("samples_us", [row["us"]])) / 1e3
    for found in times.values():
        both = [name for name in found["forward"] if name in found["backward"]]
        found["both"] = {name: found["forward"][name] + found["backward"][name] for name in both}
    if not any(found["forward"] for found in times.values()):
        raise ValueError("nothing was timed")
    return times


def add_peers(times: Times, claims: dict, peers: dict) -> None:
    """Times of published kernels, of the rows of the same batch, heads and dim."""
    passes = {"forward": "forward", "forward_backward": "both"}
    shapes = {(row["B"], row["H"], row["D"], row["T"]) for row in claims["rows"]}
    for row in peers["rows"]:
        for B, H, D, T in shapes:
            if row["name"].endswith(f" {B}x{T} {H}/{H} {D}") and row["operator"] in passes:
                for name, peer in row.get("peers", {}).items():
                    if name in PEERS and "us" in peer:
                        times[D, T][passes[row["operator"]]][name] = peer["us"] / 1e3


def name_of(contestant: str) -> str:
    return NAMES.get(contestant) or PEERS[contestant]


def doubtful(times: Times) -> set[tuple[int, int, str, str]]:
    """D, T, pass and contestant of times that do not fit to the others: of what is linear in the length, more than 1.4
    times the usual time a token, over at least four lengths."""
    found = set()
    for D in {D for D, _ in times}:
        for who in ("comba", "gated_delta", *PEERS):
            for name in PASSES:
                rates = {T: by[name][who] / T for (dim, T), by in times.items() if dim == D and who in by[name]}
                usual = statistics.median(rates.values()) if len(rates) >= 4 else float("inf")
                found |= {(D, T, name, who) for T, rate in rates.items() if rate > 1.4 * usual}
    return found | {(D, T, "both", who) for D, T, _, who in found}


def ratio_of(by: dict[str, float], who: str, marked: set[str]) -> str:
    if who not in by or "comba" not in by or marked & {who, "comba"}:
        return ""
    return f"{by[who] / by['comba']:.2f}"


def table(claims: dict, times: Times) -> str:
    """Markdown: milliseconds, and how many times as long as Comba the others take."""
    contestants = [name for name in (*NAMES, *PEERS) if any(name in by for found in times.values() for by in found.values())]
    head = ["heads x dim", "tokens", "pass", *(f"{name_of(name)}, ms" for name in contestants)]
    head += [f"{name_of(name)} / Comba" for name in contestants if name != "comba"]
    rows = [head, ["---", "---:", "---", *["---:"] * (len(head) - 3)]]
    heads = {row["D"]: row["H"] for row in claims["rows"]}
    batch = claims["rows"][0]["B"]
    wrong = doubtful(times)
    for (D, T), found in times.items():
        for name in PASSES:
            by = found[name]
            marked = {who for who in by if (D, T, name, who) in wrong}
            cells = [f"{by[who]:.3f}{'?' if who in marked else ''}" if who in by else "" for who in contestants]
            cells += [ratio_of(by, who, marked) for who in contestants if who != "comba"]
            rows.append([f"{heads[D]} x {D}", f"{batch} x {T}", name, *cells])
    for name, by in PAPER.items():
        cells = [f"{by[who]:.1f}" if who in by else "" for who in contestants]
        cells += [ratio_of(by, who, set()) for who in contestants if who != "comba"]
        rows.append(["the paper", "16384", name, *cells])
    context = claims["context"]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text += f"\n\n{context['device']}, {context['dtype']}; {context['program']}, commit {context['commit'][:10]}; the fastest of {context['repetitions']} repetitions."
    if wrong:
        text += " ?: more than 1.4 times the time a token of the other lengths, so no ratio is taken, and the picture leaves it out."
    return text + (f" Note: {context['note']}.\n" if "note" in context else "\n")


def draw(times: Times, title: str, out: pathlib.Path) -> None:
    dims = list(dict.fromkeys(D for D, _ in times))
    wrong = doubtful(times)
    with _plot_style.pyplot() as plt:
        figure, panels = plt.subplots(len(dims), len(PASSES), figsize=(4 * len(PASSES), 3.2 * len(dims)), layout="constrained", squeeze=False)
        for row, D in zip(panels, dims):
            for axes, name in zip(row, PASSES):
                for index, who in enumerate((*NAMES, *PEERS)):
                    points = [(T, found[name][who]) for (dim, T), found in times.items() if dim == D and who in found[name] and (D, T, name, who) not in wrong]
                    if points:
                        axes.plot(*zip(*points), **_plot_style.style_of(index) | _plot_style.marker_of(index), label=name_of(who))
                lengths = sorted({T for dim, T in times if dim == D})
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.set_xticks(lengths, [_plot_style.short(T / 1024) + "k" if T >= 1024 else str(T) for T in lengths])
                axes.set_title(f"{'forward + backward' if name == 'both' else name}, heads of {D}")
                axes.set_xlabel("tokens")
                axes.set_ylabel("ms")
        panels[0][0].legend(fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        _plot_style.save(figure, out)


def main(arguments: list[str] | None = None) -> int:
    parser = _plot_program.parser_of("comba.plot_claims", __doc__)
    parser.add_argument("claims", type=pathlib.Path, metavar="CLAIMS.json", help="file that comba bench claims wrote")
    parser.add_argument("--peers", type=pathlib.Path, metavar="PEERS.json", help="file that benchmarks/peers.py --claims wrote")
    _plot_program.add_picture_flag(parser, "CLAIMS.png beside the file")
    _plot_program.add_table_flag(parser)
    options = parser.parse_args(arguments)

    def work() -> None:
        claims = _plot_program.read(options.claims)
        times = times_of(claims)
        if options.peers:
            add_peers(times, claims, _plot_program.read(options.peers))
        title = f"{claims['context']['device']}, {claims['context']['dtype']}"
        _plot_program.show(options, table(claims, times), lambda out: draw(times, title, out), options.claims.with_suffix(".png"))

    return _plot_program.run(parser.prog, work, f"{options.claims} must be results of comba bench claims")


if __name__ == "__main__":
    sys.exit(main())
