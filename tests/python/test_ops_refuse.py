"""Whatever comba.ops is given, it answers with a result or with an exception of Python that says what was wrong."""

import random
import subprocess
import sys

import pytest
import torch
from delta_rule_definition import inputs

from comba import ops


def arguments(**changed) -> dict:
    x = {**inputs(T=5), **changed}
    return {name: x[name] for name in ("q", "k", "v", "p", "g", "beta", "initial_state", *changed)}


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"q": None}, "q must be a tensor; got NoneType None"),
        ({"g": 3}, "g must be a tensor; got int 3"),
        ({"v": [1.0]}, "v must be a tensor; got list [1.0]"),
        ({"q": torch.zeros(2, 5, 2)}, "q must be [B, T, H, K] and v [B, T, HV, V]; got [2, 5, 2]"),
        ({"k": torch.zeros(2, 5, 2, 8)}, "k must have shape [B, T, H, K] = [2, 5, 2, 24]; got [2, 5, 2, 8] f32"),
        ({"k": torch.zeros(2, 5, 2, 24).half()}, "k must be f32; got [2, 5, 2, 24] f16"),
        ({"v": torch.zeros(2, 5, 3, 16)}, "value heads must be a multiple of key heads; got HV = 3"),
        ({"beta": torch.zeros(2, 5, 4, 16)}, "beta must have shape [B, T, HV] = [2, 5, 4]; got [2, 5, 4, 16] f32"),
        ({"g": torch.zeros(2, 5, 4).long()}, "g must be f32, bf16 or f16; got [2, 5, 4] i64"),
        ({"q": torch.zeros(2, 5, 2, 24).double()}, "q must be f32, bf16, f16, i32 or i64; got Double"),
        ({"k": torch.zeros(2, 5, 2, 24).to_sparse()}, "k must be dense; got layout torch.sparse_coo"),
        ({"k": torch.zeros(2, 5, 2, 24, device="meta")}, "all tensors must be on one device; got q on cpu and another on meta"),
        ({"initial_state": torch.zeros(2, 4, 16, 24)}, "initial_state must have shape"),
        ({"cu_seqlens": torch.tensor([0, 5])}, "cu_seqlens needs B = 1; got B = 2"),
        ({"scale": float("nan")}, "scale must be finite; got nan"),
        ({"scale": "1"}, "scale must be a number; got str '1'"),
        ({"output_final_state": 1}, "output_final_state must be True or False; got int 1"),
        ({"use_qk_l2norm_in_kernel": None}, "use_qk_l2norm_in_kernel must be True or False; got NoneType None"),
    ],
)
def test_comba_names_rule_and_value(changed, words):
    for call in (ops.chunk_comba, ops.fused_recurrent_comba):
        with pytest.raises(ValueError) as caught:
            call(**arguments(**changed))
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"cp_context": object()}, "cp_context must be None: context parallelism is not implemented; got object"),
        ({"allow_neg_eigval": True}, "allow_neg_eigval=True needs use_beta_sigmoid_in_kernel=True; got False"),
        ({"use_gate_in_kernel": True}, "use_gate_in_kernel=True needs g and A_log; got no A_log"),
        ({"state_v_first": True, "transpose_state_layout": True}, "exclude each other; got both"),
        ({"state_v_first": True, "initial_state": torch.zeros(3)}, "initial_state must have shape [N, HV, V, K]; got [3]"),
    ],
)
def test_gated_delta_rule_names_rule_and_value(changed, words):
    x = {name: value for name, value in arguments(**changed).items() if name != "p"}
    with pytest.raises(ValueError) as caught:
        ops.chunk_gated_delta_rule(**x)
    assert words in str(caught.value)


def test_gates_a_channel_are_refused():
    x = inputs(T=5)
    with pytest.raises(ValueError, match="gk must be None: the decay is one number a head; got a tensor of shape"):
        ops.fused_recurrent_gated_delta_rule(x["q"], x["k"], x["v"], gk=x["k"])


@pytest.mark.parametrize("state, words", [
    (torch.zeros(2, 4, 24, 16).half(), "state must be f32 or bf16; got f16"),
    (torch.zeros(2, 4, 24, 16, requires_grad=True), "state must not require a gradient"),
    (torch.zeros(1, 4, 24, 16).expand(2, 4, 24, 16), "state must have memory for each of its elements"),
    (torch.zeros(2, 4, 16, 24).transpose(2, 3), "state must have stride 1 in its last dimension; got 24"),
    (None, "state must be a tensor; got NoneType None"),
])
def test_states_that_cannot_be_overwritten_are_refused(state, words):
    x = inputs(T=5)
    with pytest.raises(ValueError) as caught:
        ops.delta_rule_decode_step(x["q"], x["k"], x["v"], state, beta=x["beta"])
    assert words in str(caught.value)


def test_wrong_borders_are_named_on_the_cpu():
    x = arguments(**inputs(B=1, N=2, T=5), cu_seqlens=torch.tensor([0, 3, 4]))
    with pytest.raises(ValueError, match="cu_seqlens must end at T = 5; got 4 at 2"):
        ops.chunk_comba(**x)


@pytest.mark.parametrize("changed, words", [
    ({"rule": "gdn"}, "rule must be comba or gated_delta; got 'gdn'"),
    ({"convention": 1}, "convention must be paper or fla; got 1"),
    ({"l2norm_eps": -1.0}, "l2norm_eps must be finite and >= 0; got -1"),
    ({"beta_scale": True}, "beta_scale must be a number; got bool True"),
    ({"b": torch.zeros(2)}, "at most one of p and b may be given; got both"),
    ({"beta": None}, "exactly one of beta and beta_logit must be given; got neither"),
    ({"check_borders": "no"}, "check_borders must be True or False; got str 'no'"),
])
def test_delta_rule_names_rule_and_value(changed, words):
    with pytest.raises(ValueError) as caught:
        ops.delta_rule(**arguments(**changed))
    assert words in str(caught.value)


def test_shapes_without_data_are_checked_too():
    x = {name: tensor.to("meta") for name, tensor in arguments(v=torch.zeros(2, 5, 4)).items()}
    for call in (ops.chunk_comba, ops.fused_recurrent_comba):
        with pytest.raises(ValueError, match="q must be"):
            call(**x)


FUZZ_SECONDS, FUZZ_SEED = 3, 20251122


def anything(draw: random.Random, expected: torch.Tensor | None):
    """Mostly what belongs there, else another shape, dtype, device, layout or kind of thing."""
    kind = draw.randrange(14)
    if expected is not None and kind < 7:
        return expected
    sizes = list(expected.shape) if expected is not None else [draw.randrange(4) for _ in range(draw.randrange(6))]
    if sizes and kind in (7, 8):
        sizes[draw.randrange(len(sizes))] = draw.choice([0, 1, 2, 3, 5, 257])
    if kind == 9:
        sizes = sizes[: draw.randrange(len(sizes) + 1)] + [1] * draw.randrange(3)
    if kind == 10:
        return draw.choice([None, 3, 1.5, "q", b"q", [1], (), {}, object(), True, torch.float32, torch.nn.Linear(1, 1)])
    dtype = draw.choice([torch.float32] * 4 + [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32,
                                              torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn])
    device = draw.choice(["cpu"] * 6 + ["meta"] + ["cuda"] * torch.cuda.is_available())
    tensor = torch.zeros(sizes, dtype=dtype, device=device)
    if kind == 11 and tensor.dim() > 1:
        tensor = tensor.transpose(draw.randrange(tensor.dim()), draw.randrange(tensor.dim()))
    if kind == 12 and device == "cpu" and dtype == torch.float32:
        tensor = draw.choice([tensor.to_sparse, lambda: tensor.expand(2, *sizes), lambda: tensor[..., None]])()
    if kind == 13 and dtype.is_floating_point and dtype.itemsize > 1:
        tensor.requires_grad_()
    return tensor


def fuzz(seconds: float, seed: int) -> None:
    """Run in a process of its own: a crash of the interpreter is its exit status."""
    import time

    draw, calls, results = random.Random(seed), 0, 0
    names = ["chunk_comba", "fused_recurrent_comba", "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule",
             "delta_rule", "delta_rule_decode_step"]
    flags = ["output_final_state", "use_qk_l2norm_in_kernel", "l2norm", "check_borders", "state_v_first"]
    extra = {"cu_seqlens": torch.tensor([0, 2, 3]), "A_log": torch.zeros(2), "dt_bias": torch.zeros(2), "b": torch.zeros(1),
             "d": torch.zeros(1), "a": torch.zeros(1, 3, 2), "beta_logit": torch.zeros(1, 3, 2),
             "state_indices": torch.zeros(1, dtype=torch.int32), "num_accepted": torch.ones(1, dtype=torch.int32)}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = draw.choice(names)
        accepted = getattr(ops, name).__code__.co_varnames[: getattr(ops, name).__code__.co_argcount
                                                           + getattr(ops, name).__code__.co_kwonlyargcount]
        x = inputs(B=1, T=3, H=1, HV=2, K=4, V=4)
        x["state"] = x["initial_state"].clone()
        wild = draw.choice([0, 1, 1, 2, 4])
        call = {key: value for key, value in x.items() if key in accepted}
        for key in draw.sample(sorted(call), min(wild, len(call))):
            call[key] = anything(draw, call[key])
        for key in draw.sample(sorted(extra), draw.choice([0, 0, 1, 2])):
            if key in accepted:
                call[key] = anything(draw, extra[key])
        for key in draw.sample(flags, draw.choice([0, 0, 1])):
            if key in accepted:
                call[key] = draw.choice([True, False, None, 1])
        if draw.random() < 0.1:
            call["scale"] = draw.choice([0.5, 0, float("inf"), 1e300, "1", None, torch.ones(1)])
        calls += 1
        try:
            getattr(ops, name)(**call)
            results += 1
        except ValueError as error:
            assert str(error).startswith("["), f"{name}: {error!r}"
        except Exception as error:
            shown = {key: describe(value) for key, value in call.items()}
            raise AssertionError(f"{name}: {error!r} for {shown}") from error
    print(calls, results)


def describe(value) -> str:
    return f"{list(value.shape)} {value.dtype} {value.device}" if isinstance(value, torch.Tensor) else repr(value)


def test_no_argument_crashes_the_interpreter():
    command = [sys.executable, __file__, str(FUZZ_SECONDS), str(FUZZ_SEED)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"exit status {result.returncode}: {result.stderr[-2000:]}"
    calls, results = map(int, result.stdout.split())
    assert calls > 200 and results > calls / 50  # neither all refused nor all let through
    assert results < calls * 0.9


if __name__ == "__main__":
    fuzz(float(sys.argv[1]), int(sys.argv[2]))
