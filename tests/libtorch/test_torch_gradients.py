"""Gradients through the operators in PyTorch, on the CPU and on a GPU. Without a GPU each of its tests is skipped by
name.

Needs torch alone: `python3 tests/libtorch/test_torch_gradients.py [OnGpu]` runs it where there is no pytest."""

import sys
import unittest

import torch
import torch.utils.checkpoint
from torch_operators import DTYPES, OnADevice, expected, forward, load, random_inputs, to, without

setUpModule = load


def gradients(call, inputs: dict, cotangents=None, **options) -> dict:
    """Of `call`, a function of the inputs that gives o and the final state; cotangents of both are drawn."""
    leaves = {name: tensor.detach().requires_grad_(tensor.is_floating_point()) for name, tensor in inputs.items()}
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    outputs = call(leaves, **options)
    cotangents = drawn_cotangents(inputs) if cotangents is None else cotangents
    cotangents = [cotangent.to(output) for cotangent, output in zip(cotangents, outputs, strict=True)]
    return dict(zip(wanted, torch.autograd.grad(outputs, list(wanted.values()), cotangents), strict=True))


def drawn_cotangents(inputs: dict) -> list:
    """Of o, as its dtype has it, and of the final state."""
    random, v = torch.Generator().manual_seed(9), inputs["v"]
    d_o = torch.randn(v.shape, generator=random).to("cpu", v.dtype)
    return [d_o, torch.randn(inputs["initial_state"].shape, generator=random)]


def gradient_tolerance(name: str, dtype) -> float:
    decay = name in ("a", "A_log", "dt_bias")
    if dtype == torch.float32:
        return 1e-3 if decay else 1e-4
    if name in ("b", "d"):
        return 0.01  # a ratio over two numbers, one a head, is no mean
    return 0.008 if decay or name in ("k", "p", "initial_state") else 0.005


class Gradients:
    """What holds on every device."""

    def assert_gradients(self, inputs, **options):
        dtype = inputs["q"].dtype
        actual = gradients(forward, to(self.device, inputs), **options)
        wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
        reference = gradients(expected, wide, drawn_cotangents(inputs), **options)
        for name in reference:
            self.assertEqual(actual[name].dtype, inputs[name].dtype)
            tolerance = gradient_tolerance(name, dtype)
            self.assert_close(actual[name], reference[name], dtype, f"d{name} of {dtype}, {options}", tolerance)

    def test_gradients_agree_with_those_of_the_definition(self):
        for dtype in DTYPES:
            for rule in ("comba", "gated_delta"):
                for convention in ("paper", "fla"):
                    self.assert_gradients(random_inputs(dtype), rule=rule, convention=convention)
            packed = random_inputs(dtype, B=1, N=4)
            packed["cu_seqlens"] = torch.tensor([0, 15, 15, 100, 130])
            self.assert_gradients(packed)
            full = without(random_inputs(dtype, T=70, K=60, V=36), "b")
            full["p"] = torch.nn.functional.normalize(random_inputs(T=70, K=60, seed=2)["k"], dim=-1).to(dtype)
            self.assert_gradients(full)

    def test_repeats_give_the_same_bits_of_gradients(self):
        x = to(self.device, random_inputs(torch.bfloat16, T=300))
        first = gradients(forward, x)
        for _ in range(20):
            for name, gradient in gradients(forward, x).items():
                self.assertTrue(torch.equal(gradient, first[name]), name)

    def test_gradients_through_activation_checkpointing(self):
        x = to(self.device, random_inputs(torch.bfloat16))
        plain = gradients(forward, x)
        for reentrant in (False, True):

            def checkpointed(leaves):
                names, tensors = zip(*leaves.items())
                run = lambda *tensors: forward(dict(zip(names, tensors)))
                return torch.utils.checkpoint.checkpoint(run, *tensors, use_reentrant=reentrant)

            if reentrant:  # it allows .backward() alone
                leaves = {name: tensor.detach().requires_grad_() for name, tensor in x.items()}
                outputs = checkpointed(leaves)
                torch.autograd.backward(outputs, [c.to(o) for c, o in zip(drawn_cotangents(x), outputs)])
                again = {name: leaf.grad for name, leaf in leaves.items()}
            else:
                again = gradients(checkpointed, x)
            for name in plain:
                self.assertTrue(torch.equal(again[name], plain[name]), f"{name}, reentrant {reentrant}")

    def test_gradients_through_a_compiled_graph(self):
        x = to(self.device, random_inputs(T=70))
        plain = gradients(forward, x)
        compiled = gradients(torch.compile(forward, fullgraph=True, backend="aot_eager"), x)
        for name in plain:
            self.assertTrue(torch.equal(compiled[name], plain[name]), name)
        leaves = {name: tensor.requires_grad_() for name, tensor in x.items()}
        torch.library.opcheck(torch.ops.comba.delta_rule.default, (), leaves)


class OnCpu(Gradients, OnADevice):
    device = "cpu"


@unittest.skipUnless(torch.cuda.is_available(), "no GPU is visible")
class OnGpu(Gradients, OnADevice):
    device = "cuda"

    def test_states_kept_for_backward_change_no_bits(self):
        hopper = torch.cuda.get_device_capability()[0] == 9
        for dtype in DTYPES:
            x = to("cuda", random_inputs(dtype, T=200))
            kept = []
            for save_states in (True, False):
                sizes = []
                keep = lambda tensor: (sizes.append(tensor.numel() if tensor.dtype == torch.uint8 else 0), tensor)[1]
                with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                    kept.append((gradients(forward, x, save_states=save_states), max(sizes)))
            for name in kept[0][0]:
                self.assertTrue(torch.equal(kept[0][0][name], kept[1][0][name]), f"d{name} of {dtype}")
            self.assertEqual(kept[0][1] > 0, hopper and dtype != torch.float32, f"bytes kept with {dtype}")
            self.assertEqual(kept[1][1], 0)

    def test_without_a_gradient_nothing_is_kept(self):
        x = to("cuda", random_inputs(torch.bfloat16, T=2000))

        def peak(save_states):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            forward(x, save_states=save_states)
            return torch.cuda.max_memory_allocated() - before

        peak(False)
        self.assertEqual(peak(True), peak(False), "no input wants a gradient")
        for tensor in x.values():
            tensor.requires_grad_(tensor.is_floating_point())
        with torch.no_grad():
            self.assertEqual(peak(True), peak(False), "nothing is recorded")
        if torch.cuda.get_device_capability()[0] == 9:
            self.assertGreater(peak(True), peak(False), "what the test looks at")

    def test_backward_is_queued_on_the_stream_of_forward_without_waiting(self):
        stream, done = torch.cuda.Stream(), torch.cuda.Event()
        for dtype in DTYPES:
            source = to("cuda", random_inputs(dtype))
            reference = gradients(forward, source)
            cotangents = [cotangent.cuda() for cotangent in drawn_cotangents(source)]
            for cycles in (0, 1_000_000_000):  # the second time half a second
                x = {name: torch.zeros_like(tensor) for name, tensor in source.items()}
                torch.cuda.synchronize()
                with torch.cuda.stream(stream):
                    torch.cuda._sleep(cycles)
                    for name in x:
                        x[name].copy_(source[name])
                    actual = gradients(forward, x, cotangents)
                    done.record()
                self.assertFalse(cycles and done.query(), "the call has waited for the GPU")
                done.synchronize()
                for name in reference:
                    self.assertTrue(torch.equal(actual[name], reference[name]), f"d{name} of {dtype}")

    def test_forward_and_backward_captured_into_a_graph(self):
        for dtype in DTYPES:
            variants = [random_inputs(dtype, B=1, N=3, seed=seed) for seed in (1, 2, 3)]
            for inputs, borders in zip(variants, ([0, 10, 70, 130], [0, 0, 64, 130], [0, 65, 65, 130]), strict=True):
                inputs["cu_seqlens"] = torch.tensor(borders)
            x = to("cuda", variants[0])
            cotangents = [cotangent.cuda() for cotangent in drawn_cotangents(x)]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # kernels are loaded by their first call, which is not for a capture
                gradients(forward, x, cotangents)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                captured = gradients(forward, x, cotangents)
            for inputs in variants:
                for name in x:
                    x[name].copy_(inputs[name])
                graph.replay()
                for name, gradient in gradients(forward, to("cuda", inputs), cotangents).items():
                    self.assertTrue(torch.equal(captured[name], gradient), f"d{name} of {dtype}")

    def test_wrong_borders_make_every_gradient_nan(self):
        x = to("cuda", random_inputs(torch.bfloat16, B=1, N=2))
        x["cu_seqlens"] = torch.tensor([0, 131, 130], device="cuda")
        for name, gradient in gradients(forward, x).items():
            self.assertTrue(gradient.isnan().all(), name)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
