"""The definition of the operator (include/comba/delta_rule.h) in float64, token by token, on any device. It judges
what is timed and shares no code with it."""

import torch


def _l2(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def _steps(rule, q, k, p, v, beta, decay, state) -> tuple[torch.Tensor, torch.Tensor]:
    """q, k, p [T, N, K], v [T, N, V], beta, decay [T, N] of N heads, state [N, K, V]. o [T, N, V] and the last state."""
    o = []
    for t in range(v.size(0)):
        decayed = state * decay[t, :, None, None]
        read = torch.bmm(p[t, :, None], decayed if rule == "gated_delta" else state)  # [N, 1, V]
        u = beta[t, :, None, None] * (v[t, :, None] - read)
        state = torch.baddbmm(decayed, k[t, :, :, None], u)
        o.append(torch.bmm(q[t, :, None], state)[:, 0])
    return torch.stack(o), state


def recurrence(rule, q, k, v, beta, g, *, p=None, b=None, d=None, initial_state=None, lengths=None):
    """o [B, T, HV, V] and the final state [N, HV, K, V] in float64, by the paper's convention: the query is
    l2(q - d k) K^-1/2, the key l2(k), the feedback direction b l2(p); p absent is k, b [H] absent 1, d [H] absent 0.
    q, k, p [B, T, H, K], v [B, T, HV, V], beta, g [B, T, HV]; `lengths` are those of packed sequences, with B = 1."""
    q, k, v, beta, g = (x.double() for x in (q, k, v, beta, g))
    B, T, HV, V = v.shape
    H, K = q.shape[2:]
    b = (torch.ones(H, device=q.device) if b is None else b).double()[:, None]
    d = (torch.zeros(H, device=q.device) if d is None else d).double()[:, None]
    key = _l2(k)
    by_key_head = (_l2(q - d * k) * K**-0.5, key, b * (key if p is None else _l2(p.double())))

    def by_time(x):  # [B, T, HV, ...] -> [T, B HV, ...]
        return x.transpose(0, 1).reshape(T, B * HV, *x.shape[3:])

    q, k, p = (by_time(x.repeat_interleave(HV // H, dim=2)) for x in by_key_head)
    v, beta, decay = by_time(v), by_time(beta), by_time(g.exp())
    count = B if lengths is None else len(lengths)
    states = torch.zeros(count, HV, K, V, dtype=torch.float64, device=q.device)
    if initial_state is not None:
        states.copy_(initial_state)
    if lengths is None:
        o, states = _steps(rule, q, k, p, v, beta, decay, states.view(B * HV, K, V))
    else:
        pieces = (x.split(lengths) for x in (q, k, p, v, beta, decay))
        results = [_steps(rule, *piece, state) for *piece, state in zip(*pieces, states, strict=True)]
        o, states = torch.cat([o for o, _ in results]), torch.stack([state for _, state in results])
    return o.view(T, B, HV, V).transpose(0, 1), states.view(count, HV, K, V)


def rms_ratio(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the error over that of the reference; NaN when anything is not finite."""
    error = (actual.double() - reference).square().mean().sqrt() / reference.square().mean().sqrt()
    return error.item()
