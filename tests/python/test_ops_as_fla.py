"""The four calls with the arguments of flash-linear-attention give what its definitions give."""

import inspect

import pytest
import torch
from delta_rule_definition import assert_close, assert_gradients_close, inputs, l2, packed, recurrence

from comba import ops

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.005, torch.float16: 0.005}

# Names, order and defaults as published: a call written for these must mean the same here.
SIGNATURES = {
    "chunk_comba": "q k v p g beta=None scale=None initial_state=None output_final_state=False "
    "use_qk_l2norm_in_kernel=False cu_seqlens=None cu_seqlens_cpu=None",
    "fused_recurrent_comba": "q k p v g beta=None scale=None initial_state=None output_final_state=False "
    "use_qk_l2norm_in_kernel=False cu_seqlens=None",
    "chunk_gated_delta_rule": "q k v g beta scale=None initial_state=None output_final_state=False "
    "use_qk_l2norm_in_kernel=False use_beta_sigmoid_in_kernel=False allow_neg_eigval=False state_v_first=False "
    "cu_seqlens=None cu_seqlens_cpu=None chunk_indices=None cp_context=None",
    "fused_recurrent_gated_delta_rule": "q k v g=None gk=None gv=None beta=None scale=None initial_state=None "
    "output_final_state=False use_qk_l2norm_in_kernel=False use_gate_in_kernel=False A_log=None dt_bias=None "
    "use_beta_sigmoid_in_kernel=False allow_neg_eigval=False state_v_first=False cu_seqlens=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    parameters = inspect.signature(getattr(ops, name)).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    shown = " ".join(p.name + ("" if p.default is p.empty else f"={p.default}") for p in positional)
    assert shown == SIGNATURES[name]


def comba(name, q, k, v, p, **others):
    """Either call of the Comba rule: their orders of arguments differ."""
    return ops.chunk_comba(q, k, v, p, **others) if name == "chunk" else ops.fused_recurrent_comba(q, k, p, v, **others)


def gated_delta(name, **arguments):
    return getattr(ops, {"chunk": "chunk_gated_delta_rule", "recurrent": "fused_recurrent_gated_delta_rule"}[name])(**arguments)


def without(x: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in x.items() if name not in names}


def normalised(x: dict) -> dict:
    return {name: l2(tensor.double()) if name in "qkp" else tensor for name, tensor in x.items()}


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
@pytest.mark.parametrize("l2norm", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_comba(device, name, l2norm, dtype):
    for T in (1, 70):
        x = inputs(T=T, dtype=dtype, device=device)
        o, state = comba(name, **x, output_final_state=True, use_qk_l2norm_in_kernel=l2norm)
        expected_o, expected_state = recurrence("comba", **(normalised(x) if l2norm else x))
        assert (o.dtype, state.dtype) == (dtype, torch.float32)
        assert_close(o, expected_o, TOLERANCE[dtype], f"o, T = {T}")
        assert_close(state, expected_state, TOLERANCE[dtype], f"state, T = {T}")


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
@pytest.mark.parametrize("l2norm", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gated_delta_rule(device, name, l2norm, dtype):
    for T in (1, 70):
        x = without(inputs(T=T, dtype=dtype, device=device), "p")
        o, state = gated_delta(name, **x, output_final_state=True, use_qk_l2norm_in_kernel=l2norm)
        expected_o, expected_state = recurrence("gated_delta", p=(n := normalised(x) if l2norm else x)["k"], **n)
        assert (o.dtype, state.dtype) == (dtype, torch.float32)
        assert_close(o, expected_o, TOLERANCE[dtype], f"o, T = {T}")
        assert_close(state, expected_state, TOLERANCE[dtype], f"state, T = {T}")


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_packed_sequences(device, name):
    borders = [0, 15, 15, 60, 70]
    x = inputs(B=1, N=4, device=device)
    for dtype in (torch.int64, torch.int32):
        cu_seqlens = torch.tensor(borders, dtype=dtype, device=device)
        o, state = comba(name, **x, output_final_state=True, cu_seqlens=cu_seqlens)
        expected = packed(borders, "comba", **x)
        assert_close(o, expected[0], 1e-5, "o")
        assert_close(state, expected[1], 1e-5, "state")
    y = without(x, "p")
    o, state = gated_delta(name, **y, output_final_state=True, cu_seqlens=cu_seqlens)
    expected = packed(borders, "gated_delta", p=x["k"], **y)
    assert_close(o, expected[0], 1e-5, "o")
    assert_close(state, expected[1], 1e-5, "state")


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_gradients(name):
    tolerances = {"g": 1e-3}
    comba_call = lambda **x: comba(name, **x, output_final_state=True)
    assert_gradients_close(comba_call, lambda **x: recurrence("comba", **x), inputs(), tolerances)
    normalising = lambda **x: comba(name, **x, output_final_state=True, use_qk_l2norm_in_kernel=True)
    assert_gradients_close(normalising, lambda **x: recurrence("comba", **normalised(x)), inputs(), tolerances)
    delta_call = lambda **x: gated_delta(name, **x, output_final_state=True)
    delta_reference = lambda **x: recurrence("gated_delta", p=x["k"], **x)
    assert_gradients_close(delta_call, delta_reference, without(inputs(), "p"), tolerances)


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_defaults(name):
    x = without(inputs(), "beta", "initial_state")
    ones = torch.ones_like(x["g"])
    o, state = comba(name, **{**x, "p": None}, scale=0.5)
    assert state is None
    assert_close(o, recurrence("comba", **{**x, "p": x["k"]}, beta=ones, scale=0.5)[0], 1e-5, "o without beta and p")
    q, k, v = x["q"], x["k"], x["v"]
    o, _ = ops.fused_recurrent_gated_delta_rule(q, k, v)
    assert_close(o, recurrence("gated_delta", q, k, v, k, 0 * ones, ones)[0], 1e-5, "o without gates")


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_gates_inside(name):
    x = without(inputs(), "p", "g", "beta")
    random = torch.Generator().manual_seed(3)
    a, logit = (torch.randn(x["v"].shape[:3], generator=random) for _ in range(2))
    A_log, dt_bias = (torch.randn(x["v"].size(2), generator=random) for _ in range(2))
    gates = {"use_gate_in_kernel": True, "A_log": A_log, "use_beta_sigmoid_in_kernel": True}
    for bias, negative in ((dt_bias, False), (None, True)):
        o, _ = gated_delta(name, **x, g=a, beta=logit, dt_bias=bias, allow_neg_eigval=negative, **gates)
        g = -A_log.exp() * torch.nn.functional.softplus(a + (0 if bias is None else bias))
        beta = logit.sigmoid() * (2 if negative else 1)
        assert_close(o, recurrence("gated_delta", p=x["k"], g=g, beta=beta, **x)[0], 1e-5, f"o, negative {negative}")


@pytest.mark.parametrize("name", ["chunk", "recurrent"])
def test_state_v_first(name):
    x = without(inputs(), "p")
    o, state = gated_delta(name, **x, output_final_state=True)
    x["initial_state"] = x["initial_state"].transpose(-1, -2).contiguous()
    flipped_o, flipped = gated_delta(name, **x, output_final_state=True, state_v_first=True)
    assert torch.equal(flipped_o, o) and torch.equal(flipped, state.transpose(-1, -2))
    with pytest.warns(DeprecationWarning, match="state_v_first"):
        gated_delta(name, **x, transpose_state_layout=True)


def test_the_initial_state_is_left_alone():
    x = inputs(T=1)
    before = x["initial_state"].clone()
    o, state = comba("recurrent", **x, output_final_state=True)
    assert torch.equal(x["initial_state"], before) and not torch.equal(state, before)
    low = comba("recurrent", **{**x, "initial_state": before.bfloat16()}, output_final_state=True)[1]
    assert_close(low, recurrence("comba", **{**x, "initial_state": before.bfloat16()})[1], 1e-5, "state from bf16")


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_whole(device, backend):
    torch.compiler.reset()

    def layer(q, k, v, p, g, beta, initial_state):
        o, state = ops.chunk_comba(q, k, v, p, g, beta, initial_state=initial_state, output_final_state=True,
                                   use_qk_l2norm_in_kernel=True)
        return ops.fused_recurrent_gated_delta_rule(q, k, o, g, beta=beta, initial_state=state, output_final_state=True)

    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    x = inputs(device=device)
    with torch.no_grad():
        for actual, expected in zip(compiled(**x), layer(**x), strict=True):
            assert torch.equal(actual, expected)
    leaves = [{name: tensor.detach().requires_grad_() for name, tensor in x.items()} for _ in range(2)]
    for function, leaf in zip((compiled, layer), leaves):
        function(**leaf)[0].sum().backward()
    for name in x:
        assert torch.equal(leaves[0][name].grad, leaves[1][name].grad), name
