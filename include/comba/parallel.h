#pragma once

#include <cstdint>
#include <functional>

#include "comba/export.h"

namespace comba {

/// Body of a parallel loop: runs iterations [begin, end).
using RangeBody = std::function<void(std::int64_t begin, std::int64_t end)>;

/// Runs `body` over disjoint ranges that cover [0, count), possibly on several threads, and returns when all are done.
using ParallelFor = std::function<void(std::int64_t count, const RangeBody& body)>;

/// Makes every CPU operator use `hook` in place of the built-in thread pool, so that a program has one pool only.
/// `num_threads` tells how many threads the hook uses. An empty hook restores the built-in pool.
/// Not to be called while an operator runs.
COMBA_API void set_parallel_for(ParallelFor hook, int num_threads);

/// Threads of the built-in pool, the calling one included; at least 1. Default: the processors this process may use.
/// Not to be called while an operator runs.
COMBA_API void set_num_threads(int num_threads);

/// Threads a parallel loop may use, the hook's or the built-in pool's.
COMBA_API int num_threads();

/// Runs iterations [0, count), each exactly once, through the hook or the built-in pool.
/// The first exception a body throws is rethrown here once all threads have left the loop.
/// A loop inside a body, or beside a running loop of another thread, runs on its calling thread.
COMBA_API void parallel_for(std::int64_t count, const RangeBody& body);

}  // namespace comba
