#include "base/message.h"
#include "operators/model_step/model_step.h"

/// A build without CUDA.
namespace comba::model_step {
namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::unsupported, "[model_step] needs a build with CUDA (-DCOMBA_CUDA=ON); this one has none");
}

}  // namespace

struct StepGraph::Handle {};

void queue_step(const Model&, std::int64_t, CUstream_st*, std::span<CUstream_st* const>) { refuse(); }
StepGraph::StepGraph(const Model&, std::int64_t, CUstream_st*) { refuse(); }
StepGraph::~StepGraph() = default;
StepGraph::StepGraph(StepGraph&&) noexcept = default;
void StepGraph::launch(CUstream_st*) const { refuse(); }

}  // namespace comba::model_step
