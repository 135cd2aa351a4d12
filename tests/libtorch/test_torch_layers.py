"""short_convolution and rms_norm as PyTorch sees them, against PyTorch's own operations in double.

Needs torch alone: `python3 tests/libtorch/test_torch_layers.py [OnGpu]` runs it where there is no pytest."""

import pathlib
import sys
import unittest

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from torch_operators import DTYPES, load


def setUpModule():
    load()


def random(*shape, seed=1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolution_inputs(B=2, T=150, C=20, W=4) -> list:
    return [random(B, T, C), random(C, 1, W, seed=2)]


def convolution(x, weight, tail=None, borders=None):
    """The definition by torch's convolution; packed sequences one by one."""
    if borders is not None:
        pairs = zip(borders, borders[1:])
        return torch.cat([convolution(x[:, a:b], weight) if b > a else x[:, a:b] for a, b in pairs], 1)
    history = x.new_zeros(x.size(0), weight.size(2) - 1, x.size(2)) if tail is None else tail
    z = F.conv1d(torch.cat([history, x], 1).transpose(1, 2), weight, groups=weight.size(0))
    return F.silu(z).transpose(1, 2)


def norm(x, weight, gate=None, gate_function="silu", eps=1e-6):
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return y if gate is None else y * (F.silu(gate) if gate_function == "silu" else gate.sigmoid())


class Layers:
    """What holds on every device."""

    device = ""

    def assert_agree(self, ours, reference, inputs, dtype, what):
        """Results and gradients, by the root mean square of the error against that of the reference in double."""
        rounded = [x.to(dtype).to(self.device) for x in inputs]
        leaves = [x.detach().requires_grad_() for x in rounded]
        wide = [x.cpu().double().requires_grad_() for x in rounded]
        y, expected = ours(*leaves), reference(*wide)
        self.assertEqual((y.dtype, y.shape), (dtype, expected.shape), what)
        cotangent = random(*y.shape, seed=5).to(dtype)
        actual = [y, *torch.autograd.grad(y, leaves, cotangent.to(self.device))]
        expected = [expected, *torch.autograd.grad(expected, wide, cotangent.double())]
        # Twice what rounding of 8 bits makes, of a few roundings where there is no kernel in fp32.
        tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            error = ((a.cpu().double() - e).square().mean() / e.square().mean()).sqrt().item()
            self.assertLess(error, tolerance, f"{what}, {dtype}, output or gradient {i}")

    def test_convolution_agrees_with_the_definition(self):
        op = torch.ops.comba.short_convolution
        for dtype in DTYPES:
            for W in (4, 3):
                self.assert_agree(op, convolution, convolution_inputs(W=W), dtype, f"W = {W}")
            borders = [0, 1, 3, 3, 140, 150]
            packed = torch.tensor(borders, dtype=torch.int32, device=self.device)
            self.assert_agree(
                lambda x, w: op(x, w, None, packed), lambda x, w: convolution(x, w, borders=borders),
                convolution_inputs(B=1), dtype, "packed",
            )  # fmt: skip
            tail = random(2, 3, 20, seed=3).to(dtype)
            self.assert_agree(
                lambda x, w: op(x, w, tail.to(self.device)), lambda x, w: convolution(x, w, tail.double()),
                convolution_inputs(), dtype, "tail",
            )  # fmt: skip

    def test_convolution_takes_any_strides(self):
        x, weight = convolution_inputs(C=37)
        for B, T, C in ((2, 150, 37), (1, 16, 37), (2, 5, 1)):
            x, weight = convolution_inputs(B, T, C)
            turned = x.to(self.device).transpose(1, 2).contiguous().transpose(1, 2)  # tokens side by side
            cut = torch.cat([x, x], 2).to(self.device)[..., :C]
            weight, cotangent = weight.to(self.device), random(C, T, B, seed=6).to(self.device).permute(2, 1, 0)
            results = []
            for given in (x.to(self.device), turned, cut):
                given = given.detach().requires_grad_()
                y = torch.ops.comba.short_convolution(given, weight)
                results.append((y, *torch.autograd.grad(y, given, cotangent)))
            for other in results[1:]:
                self.assertTrue(all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)), (B, T, C))

    def test_norm_agrees_with_the_definition(self):
        op = torch.ops.comba.rms_norm
        for dtype in DTYPES:
            for shape in ((2, 50, 37), (150, 64)):
                x, weight, gate = random(*shape), random(shape[-1], seed=2), 3 * random(*shape, seed=3)
                self.assert_agree(op, norm, [x, weight], dtype, "no gate")
                for function in ("silu", "sigmoid"):
                    options = {"gate_function": function, "eps": 1e-5}
                    self.assert_agree(
                        lambda x, w, g: op(x, w, g, **options), lambda x, w, g: norm(x, w, g, **options),
                        [x, weight, gate], dtype, function,
                    )  # fmt: skip

    def both(self, x, filters, weight, gate):
        return torch.ops.comba.rms_norm(torch.ops.comba.short_convolution(x, filters), weight, gate)

    def test_compiled_without_a_graph_break(self):
        for dtype in DTYPES:
            torch.compiler.reset()
            compiled = torch.compile(self.both, fullgraph=True, dynamic=True, backend="aot_eager")
            for T in (40, 70):
                inputs = [*convolution_inputs(T=T), random(20, seed=3), random(2, T, 20, seed=4)]
                leaves = [x.to(self.device, dtype).requires_grad_() for x in inputs]
                results = []
                for call in (compiled, self.both):
                    y = call(*leaves)
                    results.append([y, *torch.autograd.grad(y.float().square().sum(), leaves)])
                self.assertTrue(all(torch.equal(a, b) for a, b in zip(*results, strict=True)), f"{dtype}, T = {T}")

    def test_opcheck(self):
        x, filters = (t.to(self.device).requires_grad_() for t in convolution_inputs(B=1, T=30))
        weight = random(20, seed=3).to(self.device).requires_grad_()
        gate = random(1, 30, 20, seed=4).to(self.device).requires_grad_()
        torch.library.opcheck(torch.ops.comba.short_convolution.default, (x, filters))
        torch.library.opcheck(torch.ops.comba.rms_norm.default, (x, weight, gate))
        borders = {"cu_seqlens": torch.tensor([0, 3, 30], device=self.device)}
        torch.library.opcheck(torch.ops.comba.short_convolution_fused.default, (x, filters), borders)
        torch.library.opcheck(torch.ops.comba.rms_norm_fused.default, (x, weight, gate))
        torch.library.opcheck(torch.ops.comba.rms_norm_fused.default, (x, weight))

    def test_wrong_arguments_are_named(self):
        x, weight = (t.to(self.device) for t in convolution_inputs())
        borders, tail = torch.tensor([0, 150], device=self.device), x[:, :3]
        convolution, norm = torch.ops.comba.short_convolution, torch.ops.comba.rms_norm
        for call, words in [
            (lambda: convolution(x[0], weight), "x must be [B, T, C] and weight [C, 1, W]; got 2 and 3 dimensions"),
            (lambda: convolution(x, weight[:7]), "with C = 20 as x has; got [7, 1, 4]"),
            (lambda: convolution(x, weight, None, borders), "cu_seqlens needs B = 1; got B = 2"),
            (lambda: convolution(x[:1], weight, tail[:1], borders), "tail and cu_seqlens exclude each other"),
            (lambda: convolution(x, weight, x[:, :2]), "tail must be [B, W - 1, C]; got [2, 2, 20]"),
            (lambda: convolution(x[:1], weight, None, borders.cpu() - 1), "must ascend from 0 to T = 150"),
            (lambda: norm(x, weight[:, 0, 0][:7]), "weight must be [D] and x [..., D]; got [7] and [2, 150, 20]"),
            (lambda: norm(x, weight[:, 0, 0], x[:1]), "gate must have the shape of x, [2, 150, 20]; got [1, 150, 20]"),
            (lambda: norm(x, weight[:, 0, 0], gate_function="tanh"), "must be sigmoid or silu; got tanh"),
        ]:
            with self.assertRaises(ValueError) as caught:
                call()
            self.assertIn(words, str(caught.exception))


class OnCpu(Layers, unittest.TestCase):
    device = "cpu"

    def test_a_second_derivative_is_refused(self):
        x, weight = (t.requires_grad_() for t in convolution_inputs())
        with self.assertRaisesRegex(Exception, "second derivative is not implemented"):
            torch.autograd.grad(torch.ops.comba.short_convolution(x, weight).sum(), x, create_graph=True)


@unittest.skipUnless(torch.cuda.is_available(), "no GPU is visible")
class OnGpu(Layers, unittest.TestCase):
    device = "cuda"


if __name__ == "__main__":
    unittest.main()
