#include "claims.h"
#include "comba/error.h"
#include "decode_bench.h"
#include "operator_gpu.h"

/// A build without CUDA.
namespace comba::benchmarks {

namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::unsupported,
              "[bench] --device cuda needs a build with CUDA (-DCOMBA_CUDA=ON); this one has none");
}

}  // namespace

ClaimsDevice claims_on_gpu(const ClaimsBench&) { refuse(); }
std::string bench_decode(const DecodeBench&) { refuse(); }
std::string bench_operator_on_gpu(const std::string&, int) { refuse(); }

}  // namespace comba::benchmarks
