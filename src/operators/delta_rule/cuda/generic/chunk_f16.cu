#include "operators/delta_rule/cuda/generic/chunk_launch.cuh"

namespace comba::delta_rule::cuda::generic {

std::int64_t forward_workspace_f16(const Problem& x) { return forward_workspace<__half>(x); }

void forward_in_chunks_f16(const Problem& x, const Arguments& arguments, Workspace workspace) {
  forward_in_chunks<__half>(x, arguments, workspace);
}

std::int64_t backward_workspace_f16(const Problem& x) { return backward_workspace<__half>(x); }

void backward_in_chunks_f16(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                            Workspace workspace) {
  backward_in_chunks<__half>(x, arguments, tensors, workspace);
}

}  // namespace comba::delta_rule::cuda::generic
