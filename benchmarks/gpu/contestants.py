"""Who takes part: torch.ops.comba and the published implementations, each as a function from inputs to a call.

Peers have no fused gates: they are given beta and g ready made, and no time of theirs is spent on it. None has the
output correction d of the query nor the feedback strength b beside the L2 norm."""

import dataclasses
import importlib
import importlib.metadata
import os
import pathlib
from collections.abc import Callable

import torch

from gpu.cases import Case, DecodeCase, Row
from gpu.inputs import exact_gates, log_decay
from gpu.recurrence import recurrence

# Before fla is imported: its Gated DeltaNet is not to hand over to FlashQLA, nor its tuning to last from run to run.
os.environ["FLA_FLASH_QLA"] = os.environ["FLA_CACHE_RESULTS"] = "0"


def load_ours(library: pathlib.Path) -> None:
    torch.ops.load_library(library)


def ours(row: Row, x: dict, state: torch.Tensor | None = None) -> Callable:
    """The whole call, from raw q and k and gates' logits to o; Comba with b and d, which Gated DeltaNet has not."""
    x = x if row.rule == "comba" else {name: tensor for name, tensor in x.items() if name not in ("b", "d")}
    if row.operator == "decode_step":
        return lambda: torch.ops.comba.delta_rule_decode_step(**x, state=state, rule=row.rule)
    return lambda: torch.ops.comba.delta_rule(**x, rule=row.rule)[0]


def expected_of_ours(row: Row, x: dict, state: torch.Tensor | None = None):
    """o and final state in float64."""
    beta, g = exact_gates(x)
    heads = {"b": x["b"], "d": x["d"]} if row.rule == "comba" else {}
    lengths = row.case.lengths if "cu_seqlens" in x else None
    return recurrence(row.rule, x["q"], x["k"], x["v"], beta, g, **heads, initial_state=state, lengths=lengths)


def with_gates(x: dict) -> dict:
    """What peers are given: beta in bf16, g in fp32, and a p of its own, as fla's layer has it."""
    return {**x, "beta": x["beta_logit"].float().sigmoid().bfloat16(), "g": log_decay(x), "p": x["k"].clone()}


def expected_of_peers(row: Row, x: dict, state: torch.Tensor | None = None):
    """Of the same inputs, with the gates as peers are given them, and neither b nor d."""
    lengths = row.case.lengths if "cu_seqlens" in x else None
    p = x["p"] if row.rule == "comba" else None
    return recurrence(row.rule, x["q"], x["k"], x["v"], x["beta"], x["g"], p=p, initial_state=state, lengths=lengths)


# What a training call differentiates: of ours, and of peers.
OUR_LEAVES, LEAVES_OF_PEERS = ("q", "k", "v", "beta_logit", "a"), ("q", "k", "v", "beta", "g")


def with_gradients(make_call: Callable, names: tuple) -> Callable:
    """Such a call, which gives o and then the gradients of x[name] by sum(o weights), weights of a fixed draw."""

    def make(row, x, state=None):
        x = {name: tensor.detach().requires_grad_() if name in names else tensor for name, tensor in x.items()}
        with torch.enable_grad():
            call, leaves = make_call(row, x, state), [x[name] for name in names]
        weights = output_weights(row.case, x["v"])

        def run():
            with torch.enable_grad():
                o = call()
                return [o.detach(), *torch.autograd.grad(o, leaves, weights)]

        return run

    return make


def output_weights(case: Case, v: torch.Tensor) -> torch.Tensor:
    random = torch.Generator(v.device).manual_seed(3)
    return torch.randn(v.shape, device=v.device, generator=random).to(v.dtype)


def maker_of(make_call: Callable, row: Row, names: tuple) -> Callable:
    """What makes the call of this row: with gradients where it trains."""
    return with_gradients(make_call, names) if row.operator == "forward_backward" else make_call


@dataclasses.dataclass(frozen=True)
class Peer:
    """`call(row, x, state)` is the call; `refusal(row)` says why a row is none of it, or nothing. `module` is what must
    be importable, `package` what the package index calls it."""

    name: str
    package: str
    module: str
    refusal: Callable[[Row], str]
    call: Callable
    computes_the_rule: bool = True
    leaves: tuple = LEAVES_OF_PEERS

    def status(self) -> str:
        """Its version; or why it does not take part."""
        try:
            importlib.import_module(self.module)
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"
        except Exception as error:  # half an installation may fail in any way
            return f"missing: {type(error).__name__}: {error}".splitlines()[0]


def _borders(x: dict):
    """cu_seqlens as most peers want them, or none."""
    return x["cu_seqlens"].long() if "cu_seqlens" in x else None


def _fla_comba(row, x, state=None):
    from fla.ops.comba import chunk_comba, fused_recurrent_comba

    if row.operator == "decode_step":
        arguments = (x["q"], x["k"], x["k"], x["v"], x["g"], x["beta"])
        options = {"initial_state": state, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
        return lambda: fused_recurrent_comba(*arguments, **options)[0]
    arguments, cu_seqlens = (x["q"], x["k"], x["v"], x["p"], x["g"], x["beta"]), _borders(x)
    return lambda: chunk_comba(*arguments, cu_seqlens=cu_seqlens, use_qk_l2norm_in_kernel=True)[0]


def _gated_delta(module):
    """fla and FlashQLA have the same interface."""

    def make(row, x, state=None):
        chunk_gated_delta_rule = importlib.import_module(module).chunk_gated_delta_rule
        arguments, cu_seqlens = (x["q"], x["k"], x["v"], x["g"], x["beta"]), _borders(x)
        return lambda: chunk_gated_delta_rule(*arguments, cu_seqlens=cu_seqlens, use_qk_l2norm_in_kernel=True)[0]

    return make


def _flashinfer(row, x, state=None):
    """Packed tensors, the decay itself and float32 gates. Has no backward."""
    from flashinfer.gdn_prefill import chunk_gated_delta_rule

    q, k, v = (x[name].flatten(0, 1) for name in "qkv")
    alpha, beta = x["g"].exp().flatten(0, 1).contiguous(), x["beta"].float().flatten(0, 1).contiguous()
    case = row.case
    evenly = torch.arange(case.B + 1, device=q.device, dtype=torch.int32) * case.T
    options = {"cu_seqlens": x.get("cu_seqlens", evenly), "max_seqlen": max(case.lengths)}
    options |= {"initial_state": None, "output_final_state": False, "use_qk_l2norm_in_kernel": True}
    return lambda: chunk_gated_delta_rule(q, k, v, alpha, beta, **options).view(case.B, case.T, case.HV, case.V)


def _sdpa(row, x, state=None):
    """Causal softmax attention, for scale: another function of the same tensors, each value head with keys of its own."""
    group = row.case.HV // row.case.H

    def call():
        q, k, v = (x[name].transpose(1, 2) for name in "qkv")
        if group > 1:
            q, k = (heads.repeat_interleave(group, dim=1) for heads in (q, k))
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    return call


def _needs(rule: str, *, decodes: bool = False, dims: Callable[[Case | DecodeCase], str] = lambda case: ""):
    def refusal(row: Row) -> str:
        if row.rule != rule:
            return f"has the rule {rule} only"
        return "has no decode step here" if row.operator == "decode_step" and not decodes else dims(row.case)

    return refusal


def _state_in_fp32(case) -> str:
    return "keeps its state in fp32" if getattr(case, "state", "f32") != "f32" else ""


def _dim_128(case) -> str:
    return "" if (case.K, case.V) == (128, 128) else "has heads of 128 only"


def _dim_128_forward(case) -> str:
    return _dim_128(case) or ("has no backward" if case.trains else "")


def _attention_refusal(row: Row) -> str:
    if row.operator == "decode_step":
        return "has no state"
    if row.case.sequences > 1:
        return "takes no packed sequences"
    return "" if row.case.K == row.case.V else "needs K = V"


PEERS = (
    Peer("fla_comba", "fla-core", "fla.ops.comba", _needs("comba", decodes=True, dims=_state_in_fp32), _fla_comba, leaves=(*LEAVES_OF_PEERS, "p")),
    Peer("fla_gdn", "fla-core", "fla.ops.gated_delta_rule", _needs("gated_delta"), _gated_delta("fla.ops.gated_delta_rule")),
    Peer("flash_qla", "flash-qla", "flash_qla", _needs("gated_delta", dims=_dim_128), _gated_delta("flash_qla")),
    Peer("flashinfer", "flashinfer-python", "flashinfer.gdn_prefill", _needs("gated_delta", dims=_dim_128_forward), _flashinfer),
    Peer("sdpa", "torch", "torch.nn.attention", _attention_refusal, _sdpa, computes_the_rule=False, leaves=("q", "k", "v")),
)
