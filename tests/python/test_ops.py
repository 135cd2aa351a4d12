"""comba.ops' own calls: what they compute, and what PyTorch asks of an operator."""

import pytest
import torch
from delta_rule_definition import assert_close, assert_gradients_close, inputs, l2, recurrence

from comba import ops


def raw_inputs(device="cpu", dtype=torch.float32, **shape) -> dict:
    """Gates, correction and feedback strength as a layer has them before the operator."""
    x = inputs(device=device, dtype=dtype, **shape)
    random = torch.Generator().manual_seed(5)
    H, HV = x["q"].size(2), x["v"].size(2)
    draw = lambda *shape: torch.randn(shape, generator=random).to(device)
    gates = {"beta_logit": draw(*x["v"].shape[:3]), "a": draw(*x["v"].shape[:3]), "A_log": draw(HV), "dt_bias": draw(HV)}
    heads = {"b": draw(H).sigmoid(), "d": 0.3 * draw(H)}
    return {**{name: x[name] for name in ("q", "k", "v", "initial_state")}, **gates, **heads}


def definition(q, k, v, beta_logit, a, A_log, dt_bias, b, d, initial_state, rule="comba", convention="paper"):
    """Section 1 of the operator's notes, in double."""
    q, k, b, d = q.double(), k.double(), b.double()[:, None], d.double()[:, None]
    beta = beta_logit.double().sigmoid()
    g = -A_log.double().exp() * torch.nn.functional.softplus((a + dt_bias).double())
    if convention == "paper":
        q, k, p = l2(q - d * k), l2(k), b * l2(k)
    else:
        q, k, p = l2(q - d * b * k), l2(k), l2(k)
    return recurrence(rule, q, k, v, p, g, beta, initial_state=initial_state)


@pytest.mark.parametrize("rule", ["comba", "gated_delta"])
@pytest.mark.parametrize("convention", ["paper", "fla"])
def test_delta_rule(device, rule, convention):
    x = raw_inputs(device)
    o, state = ops.delta_rule(**x, rule=rule, convention=convention, output_final_state=True)
    expected_o, expected_state = definition(**x, rule=rule, convention=convention)
    assert_close(o, expected_o, 1e-5, "o")
    assert_close(state, expected_state, 1e-5, "state")
    assert ops.delta_rule(**x, rule=rule)[1] is None


@pytest.mark.parametrize("convention", ["paper", "fla"])
def test_gradients(convention):
    call = lambda **x: ops.delta_rule(**x, convention=convention, output_final_state=True)
    tolerances = dict.fromkeys(["a", "A_log", "dt_bias"], 1e-3)
    assert_gradients_close(call, lambda **x: definition(**x, convention=convention), raw_inputs(), tolerances)


def test_parameters_of_a_layer_in_bf16():
    x = raw_inputs(dtype=torch.bfloat16)
    x = {name: tensor.to(torch.bfloat16) for name, tensor in x.items()}
    leaves = {name: tensor.requires_grad_() for name, tensor in x.items()}
    o, _ = ops.delta_rule(**leaves)
    assert_close(o.detach(), definition(**{name: tensor.detach() for name, tensor in x.items()})[0], 0.005, "o")
    o.float().sum().backward()
    assert all(tensor.grad.dtype == torch.bfloat16 for tensor in leaves.values())


def test_no_gates_means_no_decay(device):
    x = inputs(device=device)
    q, k, v = x["q"], x["k"], x["v"]
    o, _ = ops.delta_rule(q, k, v, beta=x["beta"], l2norm=False)
    assert_close(o, recurrence("comba", q, k, v, k, torch.zeros_like(x["g"]), x["beta"])[0], 1e-5, "o")


def test_decode_step_goes_on_where_delta_rule_ended(device):
    x = raw_inputs(device, T=70)
    whole, last = ops.delta_rule(**x, output_final_state=True)
    split = lambda begin, end: {n: t[:, begin:end] if t.dim() >= 3 and n != "initial_state" else t for n, t in x.items()}
    prompt, state = ops.delta_rule(**split(0, 66), output_final_state=True)
    token = split(66, 70)
    token.pop("initial_state")
    address = state.data_ptr()
    o = ops.delta_rule_decode_step(**token, state=state)
    assert state.data_ptr() == address
    assert_close(torch.cat([prompt, o], 1), whole, 1e-5, "o")
    assert_close(state, last, 1e-5, "state")


def test_autocast(device):
    """q, k and v are cast, whatever they are; gates and states stay in the precision they have."""
    x = raw_inputs(device)
    half = {name: x[name].bfloat16() for name in ("q", "k", "v")}
    expected, expected_state = ops.delta_rule(**{**x, **half}, output_final_state=True)
    for mixed in ({}, {"q": half["q"]}, half):
        with torch.autocast(device, dtype=torch.bfloat16):
            o, state = ops.delta_rule(**{**x, **mixed}, output_final_state=True)
        assert torch.equal(o, expected) and torch.equal(state, expected_state)
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in x.items()}
    with torch.autocast(device, dtype=torch.bfloat16):
        o = ops.delta_rule(**leaves)[0]
    o.float().sum().backward()
    assert all(leaf.grad.dtype == torch.float32 and leaf.grad.abs().sum() > 0 for leaf in leaves.values())
    token = {name: tensor for name, tensor in x.items() if name != "initial_state"}
    states = [x["initial_state"].clone() for _ in range(2)]
    with torch.autocast(device, dtype=torch.bfloat16):
        o = ops.delta_rule_decode_step(**token, state=states[0])
    assert torch.equal(o, ops.delta_rule_decode_step(**{**token, **half}, state=states[1]))
    assert torch.equal(*states)


def test_opcheck(device):
    x = raw_inputs(device, T=5)
    token = {name: tensor for name, tensor in x.items() if name != "initial_state"}
    torch.library.opcheck(torch.ops.comba.delta_rule.default, (), {**x, "output_final_state": True})
    torch.library.opcheck(torch.ops.comba.delta_rule_decode_step.default, (), {**token, "state": x["initial_state"]})
    leaves = {name: tensor.requires_grad_() for name, tensor in x.items()}
    torch.library.opcheck(torch.ops.comba.delta_rule.default, (), leaves)


def test_compiled_whole_with_any_length(device):
    torch.compiler.reset()
    compiled = torch.compile(lambda x: ops.delta_rule(**x, output_final_state=True), fullgraph=True, dynamic=True,
                             backend="aot_eager")
    for T in (5, 70):
        x = raw_inputs(device, T=T)
        for actual, expected in zip(compiled(x), ops.delta_rule(**x, output_final_state=True), strict=True):
            assert torch.equal(actual, expected), f"T = {T}"


def test_a_second_derivative_is_refused():
    x = raw_inputs(T=5)
    q = x.pop("q").requires_grad_()
    (dq,) = torch.autograd.grad(ops.delta_rule(q, **x)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        dq.square().sum().backward()


def test_gradients_of_a_decode_step_are_refused():
    x = raw_inputs(T=5)
    state, q = x.pop("initial_state"), x.pop("q").requires_grad_()
    with pytest.raises(RuntimeError, match="delta_rule_decode_step is not implemented"):
        ops.delta_rule_decode_step(q, **x, state=state).sum().backward()
