"""The recurrences as they are defined, token by token in double, and inputs to judge the operators of comba.ops with."""

import torch
import torch.nn.functional as F


def l2(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def recurrence(rule, q, k, v, p, g, beta, scale=None, initial_state=None):
    """o [B, T, HV, V] and the last state [B, HV, K, V] of a query, key and direction that are ready to use."""
    q, k, v, p, g, beta = (x.double() for x in (q, k, v, p, g, beta))
    B, T, HV, V = v.shape
    q, k, p = (x.repeat_interleave(HV // x.size(2), dim=2) for x in (q, k, p))
    q = q * (q.size(-1) ** -0.5 if scale is None else scale)
    h = v.new_zeros(B, HV, q.size(-1), V) if initial_state is None else initial_state.double()
    o = []
    for t in range(T):
        decayed = g[:, t, :, None, None].exp() * h
        stored = torch.einsum("bhkv,bhk->bhv", h if rule == "comba" else decayed, p[:, t])
        u = beta[:, t, :, None] * (v[:, t] - stored)
        h = decayed + torch.einsum("bhk,bhv->bhkv", k[:, t], u)
        o.append(torch.einsum("bhkv,bhk->bhv", h, q[:, t]))
    return torch.stack(o, 1) if o else v, h


def packed(borders, rule, q, k, v, p, g, beta, scale=None, initial_state=None):
    """The sequences between the borders, each by itself."""
    parts = []
    for n, (begin, end) in enumerate(zip(borders, borders[1:])):
        tokens = (x[:, begin:end] for x in (q, k, v, p, g, beta))
        parts.append(recurrence(rule, *tokens, scale, None if initial_state is None else initial_state[n : n + 1]))
    return torch.cat([o for o, _ in parts], 1), torch.cat([h for _, h in parts])


def inputs(B=2, T=70, H=2, HV=4, K=24, V=16, N=None, dtype=torch.float32, device="cpu", seed=0) -> dict:
    """q, k and p are unit vectors, p a bit shorter and turned: without that the rule of Comba may diverge."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=random)
    k = F.normalize(draw(B, T, H, K), dim=-1)
    x = {
        "q": F.normalize(draw(B, T, H, K), dim=-1),
        "k": k,
        "v": draw(B, T, HV, V),
        "p": 0.7 * F.normalize(k + 0.05 * draw(B, T, H, K), dim=-1),
        "g": F.logsigmoid(draw(B, T, HV) + 2),
        "beta": draw(B, T, HV).sigmoid(),
        "initial_state": draw(N or B, HV, K, V),
    }
    typed = {name: x[name].to(dtype) for name in "qkvp"}
    return {name: tensor.to(device) for name, tensor in {**x, **typed}.items()}


def error(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the error over that of the reference; infinite when something is not finite."""
    actual, reference = actual.double().cpu(), reference.double().cpu()
    assert actual.shape == reference.shape, f"{list(actual.shape)} instead of {list(reference.shape)}"
    if not actual.isfinite().all():
        return float("inf")
    return ((actual - reference).square().mean().sqrt() / reference.square().mean().sqrt().clamp_min(1e-30)).item()


def assert_close(actual, reference, tolerance: float, what: str) -> None:
    found = error(actual, reference)
    assert found < tolerance, f"{what}: error {found:.2e}, allowed {tolerance:.0e}"


def assert_gradients_close(call, reference, x: dict, tolerances: dict) -> None:
    """Gradients of both functions of the tensors of x, for one drawn cotangent of each of their two results."""

    def gradients(function, tensors):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        outputs = function(**leaves)
        random = torch.Generator().manual_seed(7)
        cotangents = [torch.randn(o.shape, generator=random).to(o) for o in outputs]
        return dict(zip(leaves, torch.autograd.grad(outputs, list(leaves.values()), cotangents)))

    expected = gradients(reference, {name: tensor.double() for name, tensor in x.items()})
    for name, gradient in gradients(call, x).items():
        assert gradient.dtype == x[name].dtype
        assert_close(gradient, expected[name], tolerances.get(name, 1e-4), f"gradient of {name}")
