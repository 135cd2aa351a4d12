#include "operators/delta_rule/cuda/generic/chunk_launch.cuh"

namespace comba::delta_rule::cuda::generic {

std::int64_t forward_workspace_bf16(const Problem& x) { return forward_workspace<__nv_bfloat16>(x); }

void forward_in_chunks_bf16(const Problem& x, const Arguments& arguments, Workspace workspace) {
  forward_in_chunks<__nv_bfloat16>(x, arguments, workspace);
}

std::int64_t backward_workspace_bf16(const Problem& x) { return backward_workspace<__nv_bfloat16>(x); }

void backward_in_chunks_bf16(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                             Workspace workspace) {
  backward_in_chunks<__nv_bfloat16>(x, arguments, tensors, workspace);
}

}  // namespace comba::delta_rule::cuda::generic
