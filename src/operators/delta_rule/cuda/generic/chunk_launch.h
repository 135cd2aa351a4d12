#pragma once

#include "operators/delta_rule/cuda/generic/arguments.cuh"
#include "operators/delta_rule/problem.h"

/// The chunk form as the host calls it: one function for each element type, each compiled in a file of its own.
namespace comba::delta_rule::cuda::generic {

std::int64_t forward_workspace_bf16(const Problem& x);
void forward_in_chunks_bf16(const Problem& x, const Arguments& arguments, Workspace workspace);
std::int64_t forward_workspace_f16(const Problem& x);
void forward_in_chunks_f16(const Problem& x, const Arguments& arguments, Workspace workspace);
std::int64_t backward_workspace_bf16(const Problem& x);
void backward_in_chunks_bf16(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                             Workspace workspace);
std::int64_t backward_workspace_f16(const Problem& x);
void backward_in_chunks_f16(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                            Workspace workspace);
std::int64_t backward_workspace_f32(const Problem& x);
void backward_in_chunks_f32(const Problem& x, const Arguments& arguments, const GradientTensors& tensors,
                            Workspace workspace);

}  // namespace comba::delta_rule::cuda::generic
