#pragma once

#include <functional>
#include <vector>

struct CUstream_st;

namespace comba::benchmarks {

/// Something that queues work on a stream.
using GpuCall = std::function<void()>;

/// Seconds of one of `calls`, for each repetition. They differ in their buffers only and queue on `stream`; all of
/// them, as often as fill a third of a millisecond, are one CUDA graph, which runs between two events.
std::vector<double> time_on_gpu(const std::vector<GpuCall>& calls, CUstream_st* stream, int repetitions);

/// So many sets of buffers that none of a set is left in the L2 cache when its turn comes again.
int num_buffers(double footprint);

/// Quantile of the samples, between neighbours linear.
double quantile(std::vector<double> samples, double share);

}  // namespace comba::benchmarks
