"""Time on the GPU: replays of a CUDA graph where calls can be captured, else the calls themselves, between events."""

import dataclasses
import math
import statistics

import torch

# Clock cycles that the GPU waits before each measurement, so that launches are queued before the first one runs.
HOLD = {"graph": 500_000, "events": 10_000_000}


@dataclasses.dataclass(frozen=True)
class Timing:
    method: str  # graph | events
    samples: list[float]  # seconds of a call

    def summary(self) -> dict:
        tenths = statistics.quantiles(self.samples, n=10, method="inclusive")
        return {"us": statistics.median(self.samples) * 1e6, "p10_us": tenths[0] * 1e6, "p90_us": tenths[-1] * 1e6,
                "method": self.method, "samples_us": [round(s * 1e6, 3) for s in self.samples]}


def num_buffers(footprint: int) -> int:
    """So many sets of buffers that none of a set is left in the L2 cache when its turn comes again."""
    l2 = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return max(2, math.ceil(2 * l2 / footprint))


def _captured(calls):
    """A graph of all calls and their results, which stay alive: each call writes memory of its own."""
    graph, results = torch.cuda.CUDAGraph(), []
    with torch.cuda.stream(torch.cuda.current_stream()):  # a capture that fails leaves another one behind
        with torch.cuda.graph(graph):
            for call in calls:
                results.append(call())
    return graph, results


@torch.no_grad()
def time_calls(calls, repetitions: int = 24) -> Timing:
    """Seconds of one of `calls`, which differ in their buffers only: all of them run between two events."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    try:
        graph, results = _captured(calls)
        method, run = "graph", graph.replay
    except Exception:  # a library may fail in any way when it is captured; its calls are timed as they are
        torch.cuda.synchronize()
        method, run = "events", lambda: [call() for call in calls]
    run()
    events = []
    for _ in range(repetitions):
        torch.cuda._sleep(HOLD[method])
        events.append([torch.cuda.Event(enable_timing=True) for _ in range(2)])
        events[-1][0].record()
        run()
        events[-1][1].record()
    torch.cuda.synchronize()
    return Timing(method, [start.elapsed_time(end) * 1e-3 / len(calls) for start, end in events])


def copy_seconds(num_bytes: int, repetitions: int = 24) -> Timing:
    """Of copies that read and write `num_bytes` in all, in memory that is not cached. By a kernel: the copy engines, to
    which a graph hands a plain copy, reach two thirds of its rate on an H200."""
    count = num_buffers(num_bytes)
    pairs = torch.ones(count, 2, num_bytes // 2 // 4, dtype=torch.int32, device="cuda")
    return time_calls([lambda pair=pair: torch.bitwise_not(pair[0], out=pair[1]) for pair in pairs], repetitions)


def ceilings() -> dict:
    """What this GPU does at its best: bytes a second of a copy, read and written; FLOP a second of a matrix product."""
    copied = 4 << 30
    copy = copy_seconds(copied)
    random = torch.Generator("cuda").manual_seed(1)
    a, b = (torch.randn(8192, 8192, device="cuda", generator=random).bfloat16() for _ in range(2))
    product = time_calls([lambda: a @ b])
    return {"copy_bytes_per_second": copied / statistics.median(copy.samples), "copy": copy.summary(),
            "gemm_flop_per_second": 2 * 8192**3 / statistics.median(product.samples), "gemm": product.summary()}
