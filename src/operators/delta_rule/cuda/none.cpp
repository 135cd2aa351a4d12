#include "base/message.h"
#include "operators/delta_rule/cuda/borders.h"
#include "operators/delta_rule/implementation.h"

/// A build without CUDA. Nobody gets as far as the borders: no implementation takes a call on a GPU.
namespace comba::delta_rule::cuda {
namespace {

[[noreturn]] void no_cuda() { throw Error(ErrorCode::unsupported, "[delta_rule] this build has no code for GPUs"); }

}  // namespace

std::vector<Implementation> implementations() { return {}; }

void queue_border_check(const Problem&, std::initializer_list<View>, void*) { no_cuda(); }

BrokenBorder read_border_check(const Execution&, const void*) { no_cuda(); }

}  // namespace comba::delta_rule::cuda
