#include "libtorch/threads.h"

#include <ATen/Parallel.h>

#include <mutex>

#include "comba/parallel.h"

// at::parallel_for is a template around OpenMP: compiled without it, it would run on one thread and not say so.
#ifndef _OPENMP
#error "compile this file with -fopenmp"
#endif

namespace comba {

void use_torch_threads() {
  const auto hook = [](std::int64_t count, const RangeBody& body) {
    at::parallel_for(0, count, /*grain_size=*/1, body);
  };
  set_parallel_for(hook, at::get_num_threads());
}

void use_torch_threads_once() {
  static std::once_flag once;
  std::call_once(once, use_torch_threads);
}

}  // namespace comba
