"""How the programs beside this file time calls on a CPU."""

import time
from collections.abc import Callable


def seconds_of_a_call(call: Callable[[], object], min_seconds: float) -> float:
    """The mean of as many calls as take min_seconds together, at least one."""
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < min_seconds or calls == 0:
        call()
        calls += 1
    return elapsed / calls
