"""Random inputs: q, k, v and the logits of beta normal, gates as a model has them at initialisation."""

import math

import torch

from gpu.cases import Case, DecodeCase

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def gates(HV: int, random: torch.Generator) -> dict:
    """A uniform in (0, 16), dt log-uniform in [1e-3, 1e-1] and dt_bias what softplus makes dt of: [HV]."""
    A, share = (torch.rand(HV, device=random.device, generator=random) for _ in range(2))
    dt = torch.exp(math.log(1e-3) + share * math.log(100))
    return {"A_log": (16 * A).clamp(min=1e-4).log(), "dt_bias": dt + torch.log(-torch.expm1(-dt))}


def make_inputs(case: Case | DecodeCase, device: str, seed: int = 1) -> dict:
    """What torch.ops.comba takes, b and d included; cu_seqlens when the case is packed."""
    random = torch.Generator(device).manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, device=device, generator=random).bfloat16()

    heads = {"b": torch.randn(case.H, device=device, generator=random).sigmoid(), "d": torch.full((case.H,), 0.02, device=device)}
    x = {
        "q": normal(case.B, case.T, case.H, case.K),
        "k": normal(case.B, case.T, case.H, case.K),
        "v": normal(case.B, case.T, case.HV, case.V),
        "beta_logit": normal(case.B, case.T, case.HV),
        "a": normal(case.B, case.T, case.HV),
        **heads,
        **gates(case.HV, random),
    }
    if getattr(case, "sequences", 1) > 1:
        borders = torch.tensor([0, *case.lengths]).cumsum(0)
        x["cu_seqlens"] = borders.to(device=device, dtype=torch.int32)
    return x


def make_state(case: DecodeCase, device: str, seed: int = 2) -> torch.Tensor:
    """[B, HV, K, V]"""
    random = torch.Generator(device).manual_seed(seed)
    state = torch.randn(case.B, case.HV, case.K, case.V, device=device, generator=random)
    return (0.1 * state).to(DTYPES[case.state])


def log_decay(x: dict) -> torch.Tensor:
    """g [B, T, HV] in float32: what implementations without fused gates are given."""
    return -x["A_log"].exp() * torch.nn.functional.softplus(x["a"].float() + x["dt_bias"])


def exact_gates(x: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """beta and g [B, T, HV] in float64."""
    g = -x["A_log"].double().exp() * torch.nn.functional.softplus(x["a"].double() + x["dt_bias"].double())
    return x["beta_logit"].double().sigmoid(), g
