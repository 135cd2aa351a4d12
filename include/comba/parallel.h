#pragma once

#include <cstdint>
#include <functional>

#include "comba/export.h"

/// The threads of all CPU operators of a process: a built-in pool, or the pool of the program through a hook.
///
/// What sets (set_parallel_for, set_num_threads) may not run while an operator, a loop or another function of this
/// header runs on any thread: set once, at the start. All else may be called on several threads at once.
namespace comba {

/// Body of a parallel loop: runs iterations [begin, end).
using RangeBody = std::function<void(std::int64_t begin, std::int64_t end)>;

/// Runs `body` over disjoint ranges that cover [0, count), possibly on several threads, and returns when all are done.
using ParallelFor = std::function<void(std::int64_t count, const RangeBody& body)>;

/// Makes every CPU operator use `hook` in place of the built-in thread pool, so that a program has one pool only.
/// The hook runs every range before it returns, rethrows what a body throws, and may itself be called on several
/// threads at once. `num_threads` tells how many threads it uses. An empty hook restores the built-in pool. Throws
/// Error (invalid_argument) when num_threads is below 1.
COMBA_API void set_parallel_for(ParallelFor hook, int num_threads);

/// Threads of the built-in pool, the calling one included. Default: the processors this process may use. Where the
/// system cannot start so many, loops run on fewer. The pool starts with the first loop; a child process starts its
/// own. Throws Error (invalid_argument) when num_threads is below 1.
COMBA_API void set_num_threads(int num_threads);

/// Threads a parallel loop may use, the hook's or the built-in pool's.
COMBA_API int num_threads();

/// Runs iterations [0, count), each exactly once, through the hook or the built-in pool.
/// The first exception a body throws is rethrown here once all threads have left the loop.
/// A loop inside a body, or beside a running loop of another thread, runs on its calling thread.
COMBA_API void parallel_for(std::int64_t count, const RangeBody& body);

}  // namespace comba
