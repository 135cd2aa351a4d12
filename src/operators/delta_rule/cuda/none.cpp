#include "operators/delta_rule/implementation.h"

/// A build without CUDA.
namespace comba::delta_rule::cuda {

std::vector<Implementation> implementations() { return {}; }

}  // namespace comba::delta_rule::cuda
