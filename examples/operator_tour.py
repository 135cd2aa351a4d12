"""What feedback and output correction do, seen on a memory of random pairs: numbers, and two pictures in OUT.

python examples/operator_tour.py [OUT]            needs matplotlib; takes seconds on a CPU

A head's state h is a matrix that answers a key k with the value h^T k. At each token (rule comba, beta = 1, no decay)

    h <- h + k (v - b h^T k)^T         what b h^T k takes back is the feedback
    o  = h^T (q - d k)                 d k is the output correction
"""

import pathlib
import sys

import torch
from matplotlib import pyplot

from comba import ops

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
K, PAIRS = 32, 40  # the state is 32 x 32, and holds up to 40 pairs
CHANGED, WHEN = 4, 25  # pair number 4 gets another value, after 25 writes
torch.manual_seed(3)


def unit(*shape: int) -> torch.Tensor:
    """Random directions."""
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def states(keys: torch.Tensor, values: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Writes pairs [T, K] one by one into one head for each strength b [H]. Returns the states [T, H, K, K]."""
    H, state = len(b), torch.zeros(1, len(b), K, K)
    after = []
    for k, v in zip(keys, values):
        k, v = (x.expand(1, 1, H, K).contiguous() for x in (k, v))
        ops.delta_rule_decode_step(k, k, v, state, beta=torch.ones(1, 1, H), b=b)
        after.append(state[0].clone())
    return torch.stack(after)


def recall(state: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """h^T k for states [..., K, K] and keys [N, K]: [..., N, K]."""
    return keys @ state


def repeat_a_pair() -> None:
    k, v = unit(K), unit(K)
    read = recall(states(k.expand(3, K), v.expand(3, K), torch.tensor([0.0, 1.0]))[-1], k[None])  # [2, 1, K]
    without, with_feedback = (read[head, 0] @ v for head in range(2))
    print("1. One pair, written three times.")
    print(f"   without feedback it is read {without:.2f} times as large, with feedback {with_feedback:.2f} times: what is known is not added again.\n")


def store_and_overwrite() -> None:
    keys, values, other = unit(PAIRS, K), unit(PAIRS, K), unit(K)
    pairs = [*range(WHEN), CHANGED, *range(WHEN, PAIRS)]  # in the order of the writes
    written = values[pairs]
    written[WHEN] = other
    b = torch.tensor([0.0, 0.5, 1.0])
    wanted = values.expand(len(pairs), PAIRS, K).clone()
    wanted[WHEN:, CHANGED] = other
    errors = (recall(states(keys[pairs], written, b), keys) - wanted[:, None]).norm(dim=-1)  # [writes, H, pairs]
    print(f"2. {PAIRS} pairs with random keys in a state of {K} x {K}; pair {CHANGED} gets another value on the way. Errors |h^T k - v|, |v| = 1:")
    for head, strength in enumerate(b.tolist()):
        fresh = errors[range(len(pairs)), head, pairs].mean()
        print(f"   b = {strength:.1f}: a pair just written {fresh:.2f}, all pairs at the end {errors[-1, head].mean():.2f}, "
              f"pair {CHANGED} after its new value {errors[WHEN, head, CHANGED]:.2f}")
    print("   Without feedback each write adds to what all other keys read, and the old value stays beside the new one.")
    print("   With b = 1 the latest value of a key is exact; old pairs fade where later keys overlap with theirs.\n")
    draw_errors(errors, b.tolist())


def draw_errors(errors: torch.Tensor, strengths: list[float]) -> None:
    figure, axes = pyplot.subplots(1, len(strengths), figsize=(11, 4.2), sharey=True, layout="constrained")
    for head, (panel, b) in enumerate(zip(axes, strengths)):
        seen = errors[:, head].T.clone()  # [pairs, writes]
        first_write = torch.arange(PAIRS) + (torch.arange(PAIRS) >= WHEN)
        seen[torch.arange(PAIRS + 1) < first_write[:, None]] = torch.nan
        image = panel.imshow(seen, cmap="viridis", vmin=0, vmax=1.6, interpolation="nearest", extent=(0.5, PAIRS + 1.5, PAIRS - 0.5, -0.5))
        panel.set(title=f"b = {b:g}: " + ("no feedback", "half", "full feedback")[head], xlabel="writes so far")
        panel.plot(WHEN + 1, CHANGED, marker="s", markersize=8, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.5)
    axes[0].set_ylabel(f"pair (white square: number {CHANGED} gets another value)")
    figure.colorbar(image, ax=axes, label="error of reading it, |h^T k - v|", extend="max", shrink=0.85)
    save(figure, "feedback.png")


def correct_the_query() -> None:
    """A query for an old pair that is mixed with the key of the token it comes with, for all mixtures and all d at once."""
    grid = torch.linspace(0, 2, 41)  # of mixtures, one a batch row, and of d, one a head
    keys, values = torch.linalg.qr(torch.randn(K, 8)).Q.T, unit(8, K)  # at right angles: no pair disturbs another
    k, v = (x[None, :, None].expand(len(grid), 8, len(grid), K).contiguous() for x in (keys, values))  # [B, T, H, K]
    q = k.clone()
    q[:, -1] = (keys[0] + grid[:, None] * keys[-1])[:, None]
    o, _ = ops.delta_rule(q, k, v, beta=torch.ones(q.shape[:3]), d=grid, scale=1.0)
    read = torch.nn.functional.normalize(o[:, -1], dim=-1)  # what matters is the direction: a norm follows in the layer
    similarity = read @ values[0]  # [mixtures, d]
    one = len(grid) // 2
    print("3. The last of 8 tokens asks for the first pair, but its own key is in the query as well. Cosine of the answer and the value:")
    print(f"   d = 0: {similarity[one, 0]:.2f}, d = 1: {similarity[one, one]:.2f}, d = 2: {similarity[one, -1]:.2f}.")
    print("   A token has just written its own value, which drowns what it asks for; d takes its key out of the query.")
    figure, panel = pyplot.subplots(figsize=(5.6, 4.4), layout="constrained")
    image = panel.imshow(similarity, origin="lower", extent=(0, 2, 0, 2), cmap="viridis", vmin=0.5, vmax=1)
    panel.plot([0, 2], [0, 2], color="white", linestyle="--", linewidth=1)
    panel.set(xlabel="output correction d", ylabel="share of the token's own key in its query")
    figure.colorbar(image, ax=panel, label="cosine of answer and stored value", extend="min")
    save(figure, "correction.png")


def save(figure, name: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / name, dpi=150)
    print(f"   -> {OUT / name}\n")


repeat_a_pair()
store_and_overwrite()
correct_the_query()
