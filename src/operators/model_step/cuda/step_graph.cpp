#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

#include "operators/model_step/model_step.h"
#include "runtime/cuda_check.h"

namespace comba::model_step {

struct StepGraph::Handle {
  cudaGraphExec_t graph = nullptr;

  ~Handle() { cudaGraphExecDestroy(graph); }
};

namespace {

struct Stream {
  cudaStream_t stream = nullptr;

  Stream() { check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  ~Stream() { cudaStreamDestroy(stream); }
};

}  // namespace

StepGraph::StepGraph(const Model& model, std::int64_t rows, CUstream_st* stream) : handle_(std::make_unique<Handle>()) {
  const std::array<Stream, kOtherStreams> streams;
  std::array<CUstream_st*, kOtherStreams> others;
  std::ranges::transform(streams, others.begin(), &Stream::stream);
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t graph = nullptr;
  try {
    queue_step(model, rows, stream, others);
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    cudaGraphDestroy(graph);
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  const cudaError_t status = cudaGraphInstantiate(&handle_->graph, graph, cudaGraphInstantiateFlagUseNodePriority);
  cudaGraphDestroy(graph);
  check_cuda(status, "cudaGraphInstantiate");
}

StepGraph::~StepGraph() = default;
StepGraph::StepGraph(StepGraph&&) noexcept = default;

void StepGraph::launch(CUstream_st* stream) const {
  check_cuda(cudaGraphLaunch(handle_->graph, stream), "cudaGraphLaunch");
}

}  // namespace comba::model_step
