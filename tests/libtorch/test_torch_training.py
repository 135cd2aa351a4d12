"""Fifty steps of training a small model, each from the CPU's weights: every gradient on the GPU is the CPU's.

Needs torch alone: `python3 tests/libtorch/test_torch_training.py` runs it where there is no pytest."""

import unittest

import torch
from torch_operators import load

setUpModule = load

VOCAB, HIDDEN, HEADS, HEAD_DIM, LAYERS = 64, 64, 12, 64, 2  # many heads: the sums of one head may cancel to anything
# RMS of the difference over RMS of the gradient. In bf16 each rounds once more in every layer, and not at the same places.
AT_MOST = {torch.float32: 0.01, torch.bfloat16: 0.03}


def new_weights() -> dict:
    random = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=random) * 0.08
    weights = {"embedding": draw(VOCAB, HIDDEN), "norm": torch.ones(HIDDEN)}
    for layer in range(LAYERS):
        weights |= {
            f"{layer}.norm": torch.ones(HIDDEN),
            f"{layer}.qkv": draw(3 * HEADS * HEAD_DIM, HIDDEN),
            f"{layer}.convolution": draw(3 * HEADS * HEAD_DIM, 1, 4) * 4,
            f"{layer}.gates": draw(2 * HEADS, HIDDEN),
            f"{layer}.A_log": torch.zeros(HEADS),
            f"{layer}.dt_bias": torch.full((HEADS,), -2.0),
            f"{layer}.b": torch.ones(HEADS),
            f"{layer}.d": torch.full((HEADS,), 0.02),
            f"{layer}.o_norm": torch.ones(HEAD_DIM),
            f"{layer}.output_gate": draw(HEADS * HEAD_DIM, HIDDEN),
            f"{layer}.o": draw(HIDDEN, HEADS * HEAD_DIM),
        }
    return weights


def mixer(w: dict, layer: int, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rows, tokens, _ = x.shape
    heads = lambda y: y.reshape(rows, tokens, HEADS, HEAD_DIM)
    qkv = torch.ops.comba.short_convolution(x @ w[f"{layer}.qkv"].T, w[f"{layer}.convolution"])
    q, k, v = (heads(y).to(dtype) for y in qkv.chunk(3, dim=-1))
    beta_logit, a = (x @ w[f"{layer}.gates"].T).chunk(2, dim=-1)
    o, _ = torch.ops.comba.delta_rule(q, k, v, b=w[f"{layer}.b"], d=w[f"{layer}.d"], beta_logit=beta_logit, a=a,
                                      A_log=w[f"{layer}.A_log"], dt_bias=w[f"{layer}.dt_bias"])
    gate = heads(x @ w[f"{layer}.output_gate"].T)
    o = torch.ops.comba.rms_norm(o.float(), w[f"{layer}.o_norm"], gate, gate_function="sigmoid")
    return o.flatten(2) @ w[f"{layer}.o"].T


def loss_of(w: dict, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = w["embedding"][ids[:, :-1]]
    for layer in range(LAYERS):
        x = x + mixer(w, layer, torch.ops.comba.rms_norm(x, w[f"{layer}.norm"]), dtype)
    logits = torch.ops.comba.rms_norm(x, w["norm"]) @ w["embedding"].T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def gradients(w: dict, ids: torch.Tensor, dtype: torch.dtype) -> tuple[float, dict]:
    leaves = {name: value.detach().requires_grad_() for name, value in w.items()}
    loss = loss_of(leaves, ids, dtype)
    return loss.item(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@unittest.skipUnless(torch.cuda.is_available(), "no GPU is visible")
class OnGpu(unittest.TestCase):
    def check(self, dtype: torch.dtype):
        random = torch.Generator().manual_seed(2)
        w = {name: value.requires_grad_() for name, value in new_weights().items()}
        optimizer = torch.optim.AdamW(w.values(), lr=3e-3)
        losses = []
        for step in range(50):
            start = torch.randint(VOCAB, (4, 1), generator=random)
            ids = (start + 3 * torch.arange(130)) % VOCAB  # something to learn
            loss, expected = gradients(w, ids, dtype)
            _, actual = gradients({name: value.detach().cuda() for name, value in w.items()}, ids.cuda(), dtype)
            for name, gradient in expected.items():
                difference = (actual[name].cpu() - gradient).square().mean().sqrt()
                size = gradient.square().mean().sqrt()
                self.assertLessEqual((difference / size).item(), AT_MOST[dtype], f"d{name} of step {step}, {dtype}")
                w[name].grad = gradient
            optimizer.step()
            losses.append(loss)
        self.assertLess(losses[-1], losses[0] / 2)

    def test_each_gradient_of_fifty_steps_is_that_of_the_cpu(self):
        for dtype in (torch.float32, torch.bfloat16):
            self.check(dtype)


if __name__ == "__main__":
    unittest.main()
