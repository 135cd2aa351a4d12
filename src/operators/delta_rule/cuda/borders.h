#pragma once

#include <initializer_list>

#include "comba/view.h"
#include "operators/delta_rule/borders.h"
#include "operators/delta_rule/problem.h"

/// Borders of packed sequences in GPU memory: nobody can look at them before a call is queued, so a kernel does, each
/// time the call runs, also in the replay of a CUDA graph.
namespace comba::delta_rule::cuda {

/// Of the start of a workspace, where the kernel leaves what it found.
constexpr std::int64_t kStatusBytes = 64;

/// Queued behind the kernels of a call with cu_seqlens: if a border breaks a rule, all results given become NaN.
void queue_border_check(const Problem& x, std::initializer_list<View> results, void* status);

/// Waits for the stream, then tells what the last such kernel left in `status`.
BrokenBorder read_border_check(const Execution& execution, const void* status);

}  // namespace comba::delta_rule::cuda
