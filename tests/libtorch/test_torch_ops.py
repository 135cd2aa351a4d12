"""The operators as PyTorch sees them, on the CPU and on a GPU. Without a GPU each of its tests is skipped by name.

Needs torch alone: `python3 tests/libtorch/test_torch_ops.py [OnGpu]` runs it where there is no pytest."""

import importlib.util
import pathlib
import shutil
import sys
import sysconfig
import unittest

import torch
from torch_operators import DTYPES, OnADevice, expected, forward, load, random_inputs, to, without

setUpModule = load


def forward_and_decode(inputs: dict, state: torch.Tensor):
    """Both operators, for what traces them: the state, a copy, is advanced in place."""
    o, final_state = torch.ops.comba.delta_rule(**inputs, output_final_state=True)
    state = state.clone()
    tokens = torch.ops.comba.delta_rule_decode_step(**without(inputs, "initial_state"), state=state)
    return o, final_state, tokens, state


class Operators:
    """What holds on every device."""

    def assert_forward(self, inputs, **options):
        o, final_state = forward(to(self.device, inputs), **options)
        expected_o, expected_state = expected(inputs, **options)
        dtype = inputs["q"].dtype
        self.assertEqual((o.dtype, final_state.dtype), (dtype, torch.float32))
        self.assert_close(o, expected_o, dtype, f"o of {dtype}, {options}")
        self.assert_close(final_state, expected_state, dtype, f"final_state of {dtype}, {options}")

    def test_forward_agrees_with_the_definition(self):
        for dtype in DTYPES:
            for rule in ("comba", "gated_delta"):
                for convention in ("paper", "fla"):
                    self.assert_forward(random_inputs(dtype), rule=rule, convention=convention)
            self.assert_forward(random_inputs(dtype, T=70, K=60, V=36))
            self.assert_forward(random_inputs(dtype, B=1, T=200, K=128, V=256))

    def test_a_full_feedback_direction(self):
        for dtype in DTYPES:
            inputs = random_inputs(dtype)
            inputs["p"] = torch.nn.functional.normalize(random_inputs(seed=2)["k"], dim=-1).to(dtype)
            self.assert_forward(without(inputs, "b"))

    def test_packed_sequences(self):
        for dtype in DTYPES:
            for index in (torch.int32, torch.int64):
                inputs = random_inputs(dtype, B=1, T=300, N=4)
                inputs["cu_seqlens"] = torch.tensor([0, 15, 15, 100, 300], dtype=index)
                self.assert_forward(inputs)
                state = forward(to(self.device, inputs))[1].cpu()
                self.assertTrue(torch.equal(state[1], inputs["initial_state"][1]), "an empty sequence keeps its state")

    def test_decode_step_advances_the_state_in_place(self):
        for dtype in DTYPES:
            inputs = random_inputs(dtype, T=5)
            x = to(self.device, without(inputs, "initial_state"))
            state = inputs["initial_state"].clone().to(self.device)
            address, version = state.data_ptr(), state._version
            o = torch.ops.comba.delta_rule_decode_step(**x, state=state)
            self.assertEqual(state.data_ptr(), address)
            self.assertGreater(state._version, version)
            expected_o, expected_state = expected(inputs)
            self.assert_close(o, expected_o, dtype, f"o of {dtype}")
            self.assert_close(state, expected_state, dtype, f"state of {dtype}")

    def test_decode_step_picks_states_and_takes_tokens_back(self):
        B, T, S = 5, 4, 8
        picked, skipped, accepted = {0: 3, 2: 7, 4: 0}, (1, 3), [T, 2, 0, 1, 1]
        for dtype in DTYPES:
            for state_dtype in (torch.float32, torch.bfloat16):
                inputs = without(random_inputs(dtype, B=B, T=T), "initial_state")
                before = random_inputs(B=S)["initial_state"].to(state_dtype)
                state = before.to(self.device, copy=True)
                rows = {"state_indices": torch.tensor([3, -1, 7, S, 0], dtype=torch.int32)}
                rows["num_accepted"] = torch.tensor(accepted, dtype=torch.int32)
                o = torch.ops.comba.delta_rule_decode_step(**to(self.device, {**inputs, **rows}), state=state)
                after = before.clone()
                for row, index in picked.items():
                    what = f"row {row}, {dtype}, state {state_dtype}"
                    one = {name: tensor[row : row + 1] if tensor.dim() > 2 else tensor for name, tensor in inputs.items()}
                    one["initial_state"] = before[index : index + 1]
                    self.assert_close(o[row : row + 1], expected(one)[0], dtype, f"o of {what}")
                    if (n := accepted[row]) > 0:
                        one = {name: tensor[:, :n] if tensor.dim() == 3 else tensor for name, tensor in one.items()}
                        one = {name: one[name] if name not in "qkv" else one[name][:, :n] for name in one}
                        written = state[index : index + 1]
                        self.assert_close(written, expected(one)[1], state_dtype, f"state of {what}")
                        after[index] = written[0].cpu()
                self.assertTrue(torch.equal(state.cpu(), after), "a state that nobody was to write has changed")
                for row in skipped:
                    self.assertEqual(o[row].abs().max().item(), 0, "a skipped row has the output 0")

    def test_any_strides_and_any_alignment(self):
        for dtype in DTYPES:
            inputs = random_inputs(dtype)
            x = to(self.device, inputs)
            x["q"] = x["q"].transpose(1, 3).contiguous().transpose(1, 3)
            odd = torch.empty(x["v"].numel() + 1, dtype=dtype, device=self.device)[1:].view_as(x["v"])
            x["v"] = odd.copy_(x["v"])
            o, final_state = forward(x)
            expected_o, expected_state = expected(inputs)
            self.assert_close(o, expected_o, dtype, f"o of {dtype}")
            self.assert_close(final_state, expected_state, dtype, f"final_state of {dtype}")

    def test_repeats_give_the_same_bits(self):
        x = to(self.device, random_inputs(torch.bfloat16, T=500))
        o, final_state = forward(x)
        for _ in range(20):
            again = forward(x)
            self.assertTrue(torch.equal(again[0], o) and torch.equal(again[1], final_state))

    def assert_compiles(self, backend):
        torch.compiler.reset()
        compiled = torch.compile(forward_and_decode, fullgraph=True, dynamic=True, backend=backend)
        for T in (70, 130):
            inputs = to(self.device, random_inputs(torch.bfloat16, T=T))
            arguments = inputs, inputs["initial_state"]
            for actual, reference in zip(compiled(*arguments), forward_and_decode(*arguments), strict=True):
                self.assertTrue(torch.equal(actual, reference), f"{backend}, T = {T}")

    def test_compiled_without_a_graph_break(self):
        self.assert_compiles("aot_eager")

    def test_opcheck(self):
        x = to(self.device, random_inputs(T=70))
        state = x["initial_state"].clone()
        torch.library.opcheck(torch.ops.comba.delta_rule.default, (), {**x, "output_final_state": True})
        torch.library.opcheck(torch.ops.comba.delta_rule.default, (), without(x, "initial_state"))
        without_state = without(x, "initial_state")
        decode = torch.ops.comba.delta_rule_decode_step.default
        torch.library.opcheck(decode, (), {**without_state, "state": state})
        rows = {name: torch.tensor([1, 0], dtype=torch.int32) for name in ("state_indices", "num_accepted")}
        torch.library.opcheck(decode, (), {**without_state, **to(self.device, rows), "state": state.bfloat16()})

    def test_wrong_arguments_are_named(self):
        x = to(self.device, random_inputs())
        for changed, words in [
            ({"v": x["v"].double()}, "v must be f32, bf16, f16, i32 or i64; got Double"),
            ({"k": x["k"].half()}, "k must be f32; got"),
            ({"q": x["q"][..., :8]}, "k must have shape"),
            ({"beta_logit": None}, "exactly one of beta and beta_logit must be given; got neither"),
            ({"cu_seqlens": torch.tensor([0, 130], device=self.device)}, "cu_seqlens needs B = 1; got B = 2"),
        ]:
            self.assertIn(words, self.refusal(lambda: forward({**x, **changed})))
        self.assertIn("rule must be comba or gated_delta; got gdn", self.refusal(lambda: forward(x, rule="gdn")))

    def test_wrong_borders_are_named_when_it_is_asked_for(self):
        x = to(self.device, random_inputs(B=1, N=3))
        for borders, words in [
            ([1, 10, 70, 130], "cu_seqlens must start at 0; got 1"),
            ([0, 70, 10, 130], "cu_seqlens must never decrease; got 70 at 1, 10 at 2"),
            ([0, -5, 10, 130], "cu_seqlens must never decrease; got 0 at 0, -5 at 1"),
            ([0, 10, 70, 129], "cu_seqlens must end at T = 130; got 129 at 3"),
            ([0, 10, 70, 2**31], "cu_seqlens must end at T = 130; got 2147483648 at 3"),
        ]:
            x["cu_seqlens"] = torch.tensor(borders, device=self.device)
            self.assertIn(words, self.refusal(lambda: forward(x, check_borders=True)))
        x["cu_seqlens"] = torch.tensor([0, 10, 70, 130], device=self.device)
        for actual, reference in zip(forward(x, check_borders=True), forward(x), strict=True):
            self.assertTrue(torch.equal(actual, reference))

    def test_wrong_arguments_of_decode_step_are_named(self):
        x = to(self.device, random_inputs(T=3))
        state = x.pop("initial_state")
        for changed, words in [
            ({"state": state.half()}, "state must be f32 or bf16; got f16"),
            ({"state": state[:1]}, "state must have shape [S, HV, K, V] = [2, 4, 64, 64]; got [1, 4, 64, 64] f32"),
            ({"state_indices": torch.zeros(2, dtype=torch.int64)}, "state_indices must be i32; got [2] i64"),
            ({"state_indices": torch.zeros(3, dtype=torch.int32)}, "state_indices must have shape [B] = [2]; got [3]"),
            ({"num_accepted": torch.zeros(2, 1, dtype=torch.int32)}, "num_accepted must have shape [B] = [2]; got [2, 1]"),
        ]:
            arguments = {**x, "state": state, **to(self.device, changed)}
            self.assertIn(words, self.refusal(lambda: torch.ops.comba.delta_rule_decode_step(**arguments)))


class OnCpu(Operators, OnADevice):
    device = "cpu"

    def test_shapes_on_a_gpu_need_no_gpu(self):
        with torch._subclasses.FakeTensorMode() as mode:
            x = {name: mode.from_tensor(tensor) for name, tensor in random_inputs(torch.bfloat16).items()}
            o, final_state = forward({name: torch.empty_like(tensor, device="cuda") for name, tensor in x.items()})
        self.assertEqual((o.device.type, o.dtype, o.shape), ("cuda", torch.bfloat16, (2, 130, 4, 64)))
        self.assertEqual((final_state.device.type, final_state.shape), ("cuda", (2, 4, 64, 64)))


@unittest.skipUnless(torch.cuda.is_available(), "no GPU is visible")
class OnGpu(Operators, OnADevice):
    device = "cuda"

    def test_compiled_by_inductor(self):
        header = pathlib.Path(sysconfig.get_path("include")) / "Python.h"
        if not (header.exists() and shutil.which("cc") and importlib.util.find_spec("triton")):
            self.skipTest("needs triton, a C compiler and Python's headers")
        self.assert_compiles("inductor")

    def test_tensors_on_two_devices_are_named(self):
        inputs = random_inputs(B=1)
        x = to("cuda", inputs)
        for name in ("k", "A_log", "initial_state"):
            words = f"{name} must be on cuda:0 as the first input is; got cpu"
            self.assertIn(words, self.refusal(lambda: forward({**x, name: inputs[name]})))
        words = "k must be on cpu as the first input is; got cuda:0"
        self.assertIn(words, self.refusal(lambda: forward({**x, "q": inputs["q"]})))
        cu_seqlens = torch.tensor([0, 130])
        self.assertIn("cu_seqlens must be on cuda:0", self.refusal(lambda: forward({**x, "cu_seqlens": cu_seqlens})))
        x = without(x, "initial_state")
        decode = torch.ops.comba.delta_rule_decode_step
        words = "state must be on cuda:0 as the first input is; got cpu"
        self.assertIn(words, self.refusal(lambda: decode(**x, state=inputs["initial_state"])))
        rows = {"state": inputs["initial_state"].cuda(), "state_indices": torch.zeros(1, dtype=torch.int32)}
        words = "state_indices must be on cuda:0 as the first input is; got cpu"
        self.assertIn(words, self.refusal(lambda: decode(**x, **rows)))

    def test_wrong_borders_make_every_result_nan(self):
        for dtype in DTYPES:
            x = to("cuda", random_inputs(dtype, B=1, N=3))
            right, wrong = ([0, 10, 70, 130], [0, 10, 70, 120])
            x["cu_seqlens"] = torch.tensor(right, device="cuda")
            expected = forward(x)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                o, final_state = forward(x)
            for borders in (wrong, right):
                x["cu_seqlens"].copy_(torch.tensor(borders))
                graph.replay()
                if borders is wrong:
                    self.assertTrue(o.isnan().all() and final_state.isnan().all(), f"{dtype}")
                else:
                    self.assertTrue(torch.equal(o, expected[0]) and torch.equal(final_state, expected[1]), f"{dtype}")

    def test_borders_cannot_be_checked_during_a_capture(self):
        x = to("cuda", random_inputs(B=1, N=1))
        x["cu_seqlens"] = torch.tensor([0, 130], device="cuda")
        forward(x)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            message = self.refusal(lambda: forward(x, check_borders=True))
        self.assertIn("nobody can wait for a stream that is being captured", message)

    def test_queued_on_the_current_stream_without_waiting(self):
        stream, done = torch.cuda.Stream(), torch.cuda.Event()
        for dtype in DTYPES:
            inputs = random_inputs(dtype, B=1, N=2)
            inputs["cu_seqlens"] = torch.tensor([0, 60, 130])
            source = to("cuda", inputs)
            reference = forward(source)
            for cycles in (0, 1_000_000_000):  # the first time loads the kernels, which may wait; the second half a second
                x = {name: torch.zeros_like(tensor) for name, tensor in source.items()}
                state = torch.zeros_like(source["initial_state"][:1])
                torch.cuda.synchronize()
                with torch.cuda.stream(stream):
                    torch.cuda._sleep(cycles)
                    for name in x:
                        x[name].copy_(source[name])
                    o, final_state = forward(x)
                    torch.ops.comba.delta_rule_decode_step(**without(x, "initial_state", "cu_seqlens"), state=state)
                    done.record()
                self.assertFalse(cycles and done.query(), "the call has waited for the GPU")
                done.synchronize()
                self.assertTrue(torch.equal(o, reference[0]) and torch.equal(final_state, reference[1]), f"{dtype}")
                self.assertGreater(state.abs().max().item(), 0)

    def test_captured_into_a_graph_and_replayed_on_other_inputs(self):
        for dtype in DTYPES:
            variants = [random_inputs(dtype, B=1, N=3, seed=seed) for seed in (1, 2, 3)]
            for inputs, borders in zip(variants, ([0, 10, 70, 130], [0, 0, 64, 130], [0, 65, 65, 130]), strict=True):
                inputs["cu_seqlens"] = torch.tensor(borders)
            x = to("cuda", variants[0])
            token = {name: x[name][:, :1] for name in ("q", "k", "v", "beta_logit", "a")}
            token |= {name: x[name] for name in ("b", "d", "A_log", "dt_bias")}
            state = torch.zeros_like(x["initial_state"][:1])
            forward(x)  # kernels are loaded by their first call, which is not for a capture
            torch.ops.comba.delta_rule_decode_step(**token, state=state)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                o, final_state = forward(x)
                decoded = torch.ops.comba.delta_rule_decode_step(**token, state=state)
            for inputs in variants:
                for name in x:
                    x[name].copy_(inputs[name])
                state.copy_(inputs["initial_state"][:1])
                graph.replay()
                reference = forward(to("cuda", inputs))
                self.assertTrue(torch.equal(o, reference[0]) and torch.equal(final_state, reference[1]), f"{dtype}")
                advanced = inputs["initial_state"][:1].to("cuda")
                self.assertTrue(torch.equal(decoded, torch.ops.comba.delta_rule_decode_step(**token, state=advanced)))
                self.assertTrue(torch.equal(state, advanced), f"{dtype}")

    def test_a_captured_decode_step_sees_other_rows(self):
        inputs = random_inputs(torch.bfloat16, B=3, T=2)
        states = random_inputs(B=4)["initial_state"].to("cuda", torch.bfloat16)
        x = to("cuda", without(inputs, "initial_state"))
        rows = {name: torch.zeros(3, dtype=torch.int32, device="cuda") for name in ("state_indices", "num_accepted")}
        decode, state = torch.ops.comba.delta_rule_decode_step, states.clone()
        decode(**x, **rows, state=state)  # loads the kernel; nothing is accepted, so no state is written twice
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            o = decode(**x, **rows, state=state)
        for indices, accepted in (([0, 1, 2], [2, 2, 2]), ([3, -1, 0], [1, 2, 0]), ([9, 2, -7], [0, 1, 2])):
            rows["state_indices"].copy_(torch.tensor(indices))
            rows["num_accepted"].copy_(torch.tensor(accepted))
            state.copy_(states)
            graph.replay()
            alone = states.clone()
            self.assertTrue(torch.equal(o, decode(**x, **rows, state=alone)), f"{indices}")
            self.assertTrue(torch.equal(state, alone), f"{indices}")

    def test_the_device_of_the_tensors_need_not_be_the_current_one(self):
        if torch.cuda.device_count() < 2:
            self.skipTest("needs two GPUs")
        for dtype in DTYPES:
            inputs = random_inputs(dtype)
            o, final_state = forward(to("cuda:1", inputs))
            self.assertEqual((o.device.index, torch.cuda.current_device()), (1, 0))
            self.assertTrue(torch.equal(o.cpu(), forward(to("cuda:0", inputs))[0].cpu()))
            mixed = {**to("cuda:0", inputs), "v": inputs["v"].to("cuda:1")}
            self.assertIn("v must be on cuda:0 as the first input is; got cuda:1", self.refusal(lambda: forward(mixed)))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]])
