"""What the tests of the operators in PyTorch share: inputs, the definition, comparisons. Needs torch alone."""

import os
import pathlib
import unittest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load():
    """COMBA_BUILD_DIR names another build than build/release."""
    library = ROOT / os.environ.get("COMBA_BUILD_DIR", "build/release") / "lib" / "libcomba_torch.so"
    assert library.exists(), f"{library} is not built: run make build"
    torch.ops.load_library(library)


def random_inputs(dtype=torch.float32, *, B=2, T=130, H=2, HV=4, K=64, V=64, N=None, seed=1) -> dict:
    """Inputs of every kind that go together, on the CPU; the values of all dtypes are the same but for rounding."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    return {
        "q": normal(B, T, H, K).to(dtype),
        "k": normal(B, T, H, K).to(dtype),
        "v": normal(B, T, HV, V).to(dtype),
        "b": normal(H).sigmoid(),
        "d": 0.1 * normal(H),
        "beta_logit": normal(B, T, HV).to(dtype),
        "a": normal(B, T, HV).to(dtype) - 3,
        "A_log": normal(HV),
        "dt_bias": normal(HV),
        "initial_state": normal(N or B, HV, K, V),
    }


def without(inputs: dict, *names: str) -> dict:
    return {name: tensor for name, tensor in inputs.items() if name not in names}


def to(device: str, inputs: dict) -> dict:
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def forward(inputs: dict, **options):
    return torch.ops.comba.delta_rule(**inputs, output_final_state=True, **options)


def l2(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def recurrence(q, k, v, d, beta_logit, a, A_log, dt_bias, initial_state, p=None, b=None, rule="comba", convention="paper"):
    """The definition (include/comba/delta_rule.h) in double: o and the state after the last token."""
    group = v.size(2) // q.size(2)
    paper, d = convention == "paper", d[:, None]
    raw = p if p is not None else (b[:, None] * k)
    q, k, p = l2(q - d * (k if paper else raw)), l2(k), (raw if paper else l2(raw)) if p is not None else None
    p = p if p is not None else (b[:, None] * k if paper else k)
    q, k, p = (x.repeat_interleave(group, dim=2) for x in (q * q.size(-1) ** -0.5, k, p))
    beta, decay = beta_logit.sigmoid(), (-A_log.exp() * torch.nn.functional.softplus(a + dt_bias)).exp()
    h, o = initial_state, []  # [B, HV, K, V]
    for t in range(q.size(1)):
        e = decay[:, t, :, None, None]
        h = e * h if rule == "gated_delta" else h
        u = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", h, p[:, t]))
        h = (h if rule == "gated_delta" else e * h) + k[:, t, :, :, None] * u[:, :, None]
        o.append(torch.einsum("bhkv,bhk->bhv", h, q[:, t]))
    return torch.stack(o, 1), h


def expected(inputs: dict, **options):
    """What the definition makes of `inputs`, which lie on the CPU; packed sequences one by one."""
    wide = {name: tensor.double() for name, tensor in without(inputs, "cu_seqlens").items()}
    if "cu_seqlens" not in inputs:
        return recurrence(**wide, **options)
    parts, borders = [], inputs["cu_seqlens"].tolist()
    for n, (begin, end) in enumerate(zip(borders, borders[1:])):
        one = {name: tensor[:, begin:end] if tensor.dim() > 2 else tensor for name, tensor in wide.items()}
        one["initial_state"] = wide["initial_state"][n : n + 1]
        parts.append(recurrence(**one, **options) if end > begin else (one["v"], one["initial_state"]))
    return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts])


class OnADevice(unittest.TestCase):
    device = ""

    def assert_close(self, actual, reference, dtype, what, tolerance=None):
        """By the root mean square of the error, against that of the reference."""
        tolerance = tolerance or (1e-5 if dtype == torch.float32 else 0.005)
        actual, reference = actual.cpu().double(), reference
        self.assertTrue(torch.isfinite(actual).all(), f"{what} is not finite")
        error = ((actual - reference).square().mean().sqrt() / reference.square().mean().sqrt()).item()
        self.assertLess(error, tolerance, f"{what}: error {error:.2e}")

    def refusal(self, call) -> str:
        """Of a call that breaks a rule."""
        with self.assertRaises(ValueError) as caught:
            call()
        return str(caught.exception)
