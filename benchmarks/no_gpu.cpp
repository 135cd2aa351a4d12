#include "comba/error.h"
#include "operator_gpu.h"

/// A build without CUDA.
namespace comba::benchmarks {

std::string bench_operator_on_gpu(const std::string&, int) {
  throw Error(ErrorCode::unsupported,
              "[bench] --device cuda needs a build with CUDA (-DCOMBA_CUDA=ON); this one has none");
}

}  // namespace comba::benchmarks
