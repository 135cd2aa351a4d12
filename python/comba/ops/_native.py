"""Our own calls: gates, output correction, feedback strength and normalisation inside the operator."""

from typing import Literal

import torch

from comba.ops._arguments import (
    require_flags,
    require_number,
    require_optional_tensors,
    require_tensors,
    require_word,
    to_fp32,
    wants_gradient,
)

Rule = Literal["comba", "gated_delta"]
Convention = Literal["paper", "fla"]


def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    beta: torch.Tensor | None = None,
    beta_logit: torch.Tensor | None = None,
    g: torch.Tensor | None = None,
    a: torch.Tensor | None = None,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    d: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    rule: Rule = "comba",
    convention: Convention = "paper",
    l2norm: bool = True,
    l2norm_eps: float = 1e-6,
    scale: float | None = None,
    beta_scale: float = 1.0,
    output_final_state: bool = False,
    check_borders: bool = False,
    save_states: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""All T tokens at once, in chunks of 64: training and prefill. Per token, with the state h in R^{K x V}::

        comba        u = beta (v - h^T p);   h <- e^g h + k u^T;                          o = h^T (scale q)
        gated_delta  h <- e^g h;             u = beta (v - h^T p);   h <- h + k u^T;      o = h^T (scale q)

    where, with l2(x) = x / sqrt(sum x^2 + l2norm_eps) (the identity without `l2norm`)::

        paper        q <- l2(q - d k);       k <- l2(k);   p = b l2(k), or the given p as it is
        fla          q <- l2(q - d b k);     k <- l2(k);   p = l2(k);   for a given p: q <- l2(q - d p), p <- l2(p)

    Args:
        q, k: `[B, T, H, K]`; fp32, bf16 or fp16, as v and p are. Any strides.
        v: `[B, T, HV, V]`.
        beta: `[B, T, HV]`, any floating dtype as all gates: the step size itself; or
        beta_logit: `[B, T, HV]`: beta = beta_scale sigmoid(beta_logit). One of the two must be given.
        g: `[B, T, HV]`: natural logarithm of the decay, <= 0 (-inf forgets everything); or
        a: `[B, T, HV]`: g = -exp(A_log) softplus(a + dt_bias). With neither nothing decays.
        A_log, dt_bias: `[HV]`, with a; an absent dt_bias is 0.
        p: `[B, T, H or HV, K]`: a feedback direction of its own, in place of b.
        b: `[H]`: feedback strength; absent: 1.
        d: `[H]`: output correction; absent: 0.
        initial_state: `[N, HV, K, V]`, computed in fp32; absent: 0.
        cu_seqlens: `[N + 1]` int32 or int64, on the device of q: borders of packed sequences, from 0 to T; needs B = 1.
        rule, convention: see above.
        scale: multiplies the query; default K^-1/2.
        beta_scale: in (0, 2], with beta_logit; above 1 (negative eigenvalues) for gated_delta only.
        check_borders: on a GPU wrong borders in cu_seqlens make every result NaN; with this the call waits for the GPU
            and says which border is wrong. On the CPU they are always checked.
        save_states: keep the states before each chunk of 64 tokens for backward, where that saves time: on Hopper GPUs,
            in eager mode, if a gradient is needed. That takes 2 K V + 128 V bytes and 19 KB a chunk and value head;
            otherwise, and with False, backward computes them again. The bits are the same.

    Returns:
        o `[B, T, HV, V]` in the dtype of q, and the state after the last token `[N, HV, K, V]` in fp32, or None unless
        `output_final_state`.

    Differentiable once in every floating input. Source: arXiv 2506.02475, section 3.
    """
    where = "delta_rule"
    require_tensors(where, q=q, k=k, v=v)
    require_optional_tensors(where, beta=beta, beta_logit=beta_logit, g=g, a=a, A_log=A_log, dt_bias=dt_bias, p=p, b=b,
                             d=d, initial_state=initial_state, cu_seqlens=cu_seqlens)
    require_options(where, rule, convention, l2norm, l2norm_eps, scale, beta_scale)
    require_flags(where, output_final_state=output_final_state, check_borders=check_borders, save_states=save_states)
    g, dt_bias = with_defaults(v, g, a, A_log, dt_bias)
    o, final_state = torch.ops.comba.delta_rule(
        q, k, v, p=p, b=to_fp32(b), d=to_fp32(d), beta=beta, beta_logit=beta_logit, g=g, a=a, A_log=to_fp32(A_log),
        dt_bias=to_fp32(dt_bias), initial_state=to_fp32(initial_state), cu_seqlens=cu_seqlens, rule=rule,
        convention=convention, l2norm=l2norm, l2norm_eps=l2norm_eps, scale=scale, beta_scale=beta_scale,
        output_final_state=output_final_state, check_borders=check_borders, save_states=save_states)
    return o, final_state if output_final_state else None


def delta_rule_decode_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: torch.Tensor,
    *,
    beta: torch.Tensor | None = None,
    beta_logit: torch.Tensor | None = None,
    g: torch.Tensor | None = None,
    a: torch.Tensor | None = None,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    d: torch.Tensor | None = None,
    state_indices: torch.Tensor | None = None,
    num_accepted: torch.Tensor | None = None,
    rule: Rule = "comba",
    convention: Convention = "paper",
    l2norm: bool = True,
    l2norm_eps: float = 1e-6,
    scale: float | None = None,
    beta_scale: float = 1.0,
) -> torch.Tensor:
    r"""T new tokens of B sequences, one by one, the state updated in place: generation. No gradients.

    Args (those not named here: `delta_rule`):
        state: `[S, HV, K, V]` fp32 or bf16, stride 1 in its last dimension: read, then overwritten. S = B without
            state_indices.
        state_indices: `[B]` int32: the state of each row, none of them twice. A row whose index is not in 0 .. S - 1
            is skipped, and its output is 0.
        num_accepted: `[B]` int32: after how many of the T tokens the row's state is written; not in 1 .. T: not at all.

    Returns:
        o `[B, T, HV, V]` in the dtype of q.
    """
    where = "delta_rule_decode_step"
    require_tensors(where, q=q, k=k, v=v, state=state)
    require_optional_tensors(where, beta=beta, beta_logit=beta_logit, g=g, a=a, A_log=A_log, dt_bias=dt_bias, p=p, b=b,
                             d=d, state_indices=state_indices, num_accepted=num_accepted)
    if wants_gradient(state):
        raise ValueError(f"[{where}] state must not require a gradient, since it is overwritten; got one that does")
    if any(size > 1 and stride == 0 for size, stride in zip(state.shape, state.stride())):
        raise ValueError(f"[{where}] state must have memory for each of its elements; got an expanded tensor")
    require_options(where, rule, convention, l2norm, l2norm_eps, scale, beta_scale)
    g, dt_bias = with_defaults(v, g, a, A_log, dt_bias)
    return torch.ops.comba.delta_rule_decode_step(
        q, k, v, p=p, b=to_fp32(b), d=to_fp32(d), beta=beta, beta_logit=beta_logit, g=g, a=a, A_log=to_fp32(A_log),
        dt_bias=to_fp32(dt_bias), state=state, state_indices=state_indices, num_accepted=num_accepted, rule=rule,
        convention=convention, l2norm=l2norm, l2norm_eps=l2norm_eps, scale=scale, beta_scale=beta_scale)


def require_options(where, rule, convention, l2norm, l2norm_eps, scale, beta_scale) -> None:
    require_word(where, "rule", rule, ("comba", "gated_delta"))
    require_word(where, "convention", convention, ("paper", "fla"))
    require_flags(where, l2norm=l2norm)
    require_number(where, "l2norm_eps", l2norm_eps)
    require_number(where, "beta_scale", beta_scale)
    if scale is not None:
        require_number(where, "scale", scale)


def with_defaults(v, g, a, A_log, dt_bias):
    """g when nothing decays; dt_bias when there is none."""
    if g is None and a is None and v.dim() == 4:
        g = v.new_zeros(v.shape[:3], dtype=torch.float32)
    if a is not None and A_log is not None and dt_bias is None:
        dt_bias = torch.zeros_like(A_log)
    return g, dt_bias
