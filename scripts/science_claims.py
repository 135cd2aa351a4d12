"""The table of claims in docs/science.md: what the paper says, what our runs say, and what their spread allows to conclude.

    scripts/science_claims.py ABLATION.json ABLATION.json ... CLAIMS.json --table FILE

The first files are of comba ablate, a column each, the last one is of comba bench claims. scripts/science.py calls it.
"""

import argparse
import dataclasses
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

from comba import plot_ablation, plot_claims  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a variant has a higher loss than the base, which the paper bases on these numbers."""

    text: str
    variant: str
    paper: str
    metric: str = "loss"


CLAIMS = (
    Claim("Comba is ahead of Gated DeltaNet", "gated-deltanet", "Wiki ppl 24.15 against 26.47"),
    Claim("and recalls better", "gated-deltanet", "recall 30.40 against 24.80", "recalled_loss"),
    Claim("it is ahead of a transformer", "transformer", "24.15 against 28.39"),
    Claim("which recalls better, though", "transformer", "30.40 against 31.68: the reverse", "recalled_loss"),
    Claim("correcting the query (q - d k) helps", "no-output-correction", "24.15 against 25.49"),
    Claim("above all in recall", "no-output-correction", "30.40 against 28.21", "recalled_loss"),
    Claim("at 340 M, d should begin at 0.02, not 1", "d-init-1", "24.15 against 24.27"),
    Claim("for recall", "d-init-1", "30.40 against 27.94", "recalled_loss"),
    Claim("inner decay b helps", "no-inner-decay", "24.15 against 24.56"),
    Claim("the output gate helps", "no-output-gate", "24.15 against 24.71"),
    Claim("SPLR is ahead of IPLR", "iplr", "its models are SPLR"),
    Claim("blocks with an MLP are ahead of Mamba-like ones", "mamba-like", "24.15 against 25.45"),
)


def differences(results: dict, claim: Claim) -> tuple[str, str]:
    """The difference as text, and what it says of the claim."""
    lines = {line.name: line for line in plot_ablation.lines_of(results)}
    base = next(iter(lines.values()))
    found = lines[claim.variant].difference(base, claim.metric) if claim.variant in lines else None
    if found is None:
        return "", "not measured"
    ours, theirs = lines[claim.variant].losses(claim.metric), base.losses(claim.metric)
    higher = sum(ours[seed] > theirs[seed] for seed in ours if seed in theirs)
    text = f"{found.mean:+.4f} ± {found.margin:.4f}, higher in {higher} of {found.count}"
    expected = "better" if "the reverse" in claim.paper else "worse"
    verdict = found.verdict()
    return text, verdict if verdict == "no difference seen" else "showed" if verdict == expected else "**contradicted**"


def speed(claims: dict) -> list[list[str]]:
    times = plot_claims.times_of(claims)
    wrong = plot_claims.doubtful(times)
    rows = []
    for name, text in (("forward", "Comba's forward pass is 40 % faster than Gated DeltaNet's"), ("both", "and training 12 %")):
        paper = plot_claims.PAPER[name]
        found = []
        for (D, T), by in times.items():
            ratio = plot_claims.ratio_of(by[name], "gated_delta", {who for who in by[name] if (D, T, name, who) in wrong})
            if ratio:
                found.append(float(ratio))
        rows.append([text, f"{paper['gated_delta'] / paper['comba']:.2f} at 16k tokens", f"{min(found):.2f} to {max(found):.2f} over lengths and heads"])
    return rows


def table(ablations: list[dict], claims: dict) -> str:
    names = [f"{results['cells'][0]['parameters'] / 1e6:.2g} M parameters" for results in ablations]
    head = ["claim", "paper", *(f"{name}: loss without it, less that with it" for name in names), "verdict"]
    rows = [head, ["---"] * len(head)]
    for claim in CLAIMS:
        found = [differences(results, claim) for results in ablations]
        verdicts = list(dict.fromkeys(verdict for _, verdict in found))
        told = verdicts[0] if len(verdicts) == 1 else "; ".join(f"{name}: {verdict}" for name, (_, verdict) in zip(names, found))
        rows.append([claim.text, claim.paper, *(text for text, _ in found), told])
    for text, paper, ours in speed(claims):
        verdict = "not with these kernels" if not ours.startswith("1.4") else "showed"
        rows.append([text, paper, f"{ours}, on a GPU", *[""] * (len(ablations) - 1), verdict])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path, metavar="RESULTS.json")
    parser.add_argument("--table", type=pathlib.Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    *ablations, claims = [json.loads(file.read_text(encoding="utf-8")) for file in options.results]
    options.table.write_text(table(ablations, claims), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
