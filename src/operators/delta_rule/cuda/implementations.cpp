#include "operators/delta_rule/cuda/generic/generic.h"
#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda {

std::vector<Implementation> implementations() { return {generic::implementation()}; }

}  // namespace comba::delta_rule::cuda
