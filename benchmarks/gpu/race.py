"""One row: is it right, how long does it take, how long do the peers take."""

import statistics
import time

import torch

from gpu import contestants, timing
from gpu.cases import DecodeCase, Row
from gpu.inputs import make_inputs, make_state
from gpu.recurrence import rms_ratio

DEVICE = "cuda"
# RMS ratios to the recurrence in float64, of bf16 tensors: of outputs and states, and of gradients.
TOLERANCE, TOLERANCE_OF_GRADIENTS = 0.005, 0.008
MOST_TOKENS_TO_DIFFERENTIATE = 256  # the recurrence keeps a state a token


def _state(row: Row, seed: int = 2):
    return make_state(row.case, DEVICE, seed) if isinstance(row.case, DecodeCase) else None


def checked(row: Row, tokens: int) -> Row:
    """The row over few tokens, for the recurrence takes them one by one. Decode steps stay as they are."""
    if isinstance(row.case, DecodeCase):
        return row
    return Row(row.operator, row.rule, row.case.shortened(min(tokens, MOST_TOKENS_TO_DIFFERENTIATE) if row.case.trains else tokens))


def training_errors(row: Row, x: dict, make_call, expected, names: tuple) -> dict:
    """RMS ratio of o and of the gradient of each of `names`, to the derivative of the recurrence."""
    wide = {name: tensor.double() if name in names else tensor for name, tensor in x.items()}
    results = contestants.with_gradients(make_call, names)(row, x)()
    weights = contestants.output_weights(row.case, x["v"]).double()
    with torch.enable_grad():
        leaves = {name: wide[name].detach().requires_grad_() for name in names}
        o = expected(row, {**wide, **leaves})[0]
        gradients = torch.autograd.grad(o, list(leaves.values()), weights)
    return {"o": rms_ratio(results[0], o.detach())} | {
        f"d{name}": rms_ratio(ours, exact) for name, ours, exact in zip(names, results[1:], gradients, strict=True)
    }


@torch.no_grad()
def our_errors(row: Row) -> dict:
    """RMS ratio of o and, of a decode step, of the state it leaves."""
    x, state = make_inputs(row.case, DEVICE), _state(row)
    if row.operator == "forward_backward":
        return training_errors(row, x, contestants.ours, contestants.expected_of_ours, contestants.OUR_LEAVES)
    expected_o, expected_state = contestants.expected_of_ours(row, x, state)
    errors = {"o": rms_ratio(contestants.ours(row, x, state)(), expected_o)}
    return errors if state is None else {**errors, "state": rms_ratio(state, expected_state)}


def passes(errors: dict) -> bool:
    most = {name: TOLERANCE_OF_GRADIENTS if name.startswith("d") else TOLERANCE for name in errors}
    return all(error <= most[name] for name, error in errors.items())  # NaN does not


def _buffers(row: Row, make_call, prepare=lambda x: x) -> list:
    """The same call on as many sets of buffers as the L2 cache cannot hold."""
    calls = []
    for number in range(timing.num_buffers(row.case.footprint)):
        x = prepare(make_inputs(row.case, DEVICE, seed=10 + number))
        calls.append(make_call(row, x, _state(row, seed=1000 + number)))
    return calls


def our_time(row: Row, repetitions: int) -> timing.Timing:
    return timing.time_calls(_buffers(row, contestants.maker_of(contestants.ours, row, contestants.OUR_LEAVES)), repetitions)


def rates(row: Row, seconds: float, ceilings: dict) -> dict:
    """What the time means beside the ceilings of the same run."""
    copy, gemm = ceilings["copy_bytes_per_second"], ceilings["gemm_flop_per_second"]
    case, moved = row.case, row.case.bytes / seconds
    found = {"bytes": case.bytes, "bytes_per_second": moved, "of_copy": moved / copy}
    if not isinstance(case, DecodeCase):
        floor = case.floor_seconds(copy, gemm)
        found |= {"flop": case.flop, "flop_per_second": case.flop / seconds, "of_gemm": case.flop / seconds / gemm}
        found |= {"floor_us": floor * 1e6, "times_floor": seconds / floor}
    return found


@torch.no_grad()
def peer_errors(peer: contestants.Peer, row: Row) -> dict:
    if not peer.computes_the_rule:
        return {}
    x, state = contestants.with_gates(make_inputs(row.case, DEVICE)), _state(row)
    if row.operator == "forward_backward":
        return training_errors(row, x, peer.call, contestants.expected_of_peers, peer.leaves)
    expected_o, _ = contestants.expected_of_peers(row, x, state)
    return {"o": rms_ratio(peer.call(row, x, state)(), expected_o)}


def peer_result(peer: contestants.Peer, row: Row, our_seconds: float, tokens: int, repetitions: int) -> dict:
    """Its time, its error and `ratio`, its time over ours; or why it has none."""
    if reason := peer.refusal(row):
        return {"refusal": reason}
    try:
        errors = peer_errors(peer, checked(row, tokens))
        make_call = contestants.maker_of(peer.call, row, peer.leaves)
        timed = timing.time_calls(_buffers(row, make_call, contestants.with_gates), repetitions)
    except Exception as error:  # what another program raises is its result
        return {"refusal": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    finally:
        torch.cuda.empty_cache()
    return {**timed.summary(), "errors": errors, "ratio": statistics.median(timed.samples) / our_seconds}


def our_result(row: Row, ceilings: dict, tokens: int, repetitions: int) -> dict:
    """Errors, and when they are small enough times and rates."""
    shorter = checked(row, tokens)
    errors = our_errors(shorter)
    result = {"name": row.name, "operator": row.operator, "rule": row.rule, "errors": errors, "checked_as": shorter.name}
    if not passes(errors):
        return result
    timed = our_time(row, repetitions)
    seconds = statistics.median(timed.samples)
    result |= {**timed.summary(), **rates(row, seconds, ceilings)}
    if isinstance(row.case, DecodeCase):
        copy = timing.copy_seconds(row.case.bytes, repetitions)
        result |= {"copy_us": copy.summary()["us"], "of_copy_of_same_bytes": statistics.median(copy.samples) / seconds}
    torch.cuda.empty_cache()
    return result


def first_call(row: Row, make_call, prepare=lambda x: x) -> dict:
    """Seconds of the first call in this process, until the GPU is done, and of the second."""
    x, state = prepare(make_inputs(row.case, DEVICE)), _state(row)
    torch.cuda.synchronize()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.no_grad():
            make_call(row, x, state)()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"first_seconds": seconds[0], "second_seconds": seconds[1]}
