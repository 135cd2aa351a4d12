#include "operators/delta_rule/cuda/generic/generic.h"
#include "operators/delta_rule/cuda/sm90/sm90.h"
#include "operators/delta_rule/implementation.h"

namespace comba::delta_rule::cuda {

std::vector<Implementation> implementations() { return {sm90::implementation(), generic::implementation()}; }

}  // namespace comba::delta_rule::cuda
