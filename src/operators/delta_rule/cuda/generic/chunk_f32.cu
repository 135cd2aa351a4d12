#include "operators/delta_rule/cuda/generic/chunk_launch.cuh"

namespace comba::delta_rule::cuda::generic {

std::int64_t backward_workspace_f32(const Problem& x) { return backward_workspace<float>(x); }

void backward_in_chunks_f32(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                            Workspace workspace) {
  backward_in_chunks<float>(x, arguments, tensors, workspace);
}

}  // namespace comba::delta_rule::cuda::generic
