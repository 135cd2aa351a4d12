#pragma once

#include <ATen/ATen.h>

#include <vector>

/// Tensors that are neighbours in one storage, taken as one: what lies together is computed by one call and moved by no
/// copy. All of this is below autograd.
namespace comba {

/// The tensor [..., n_1 + n_2 + ..] whose columns [..., n_i] the tensors are, in their order; undefined where they are
/// not, and for undefined ones.
at::Tensor joined_columns(at::TensorList tensors);

/// The tensor [n_1 + n_2 + .., ...] whose rows the dense tensors [n_i, ...] are, in their order; undefined where they
/// are not.
at::Tensor joined_rows(at::TensorList tensors);

/// Columns [..., widths[i]] and rows [heights[i], ...] of a tensor, as views.
std::vector<at::Tensor> cut_columns(const at::Tensor& joined, at::IntArrayRef widths);
std::vector<at::Tensor> cut_rows(const at::Tensor& joined, at::IntArrayRef heights);

/// Dense tensors of the given heights [n_i, ...], side by side in one storage, not set.
std::vector<at::Tensor> empty_rows(at::IntArrayRef heights, at::IntArrayRef sizes_of_a_row,
                                   const at::TensorOptions& options);

/// A tensor like x [..., n] for its gradient. Where x is the first columns of wider rows, so is the gradient: what
/// belongs beside it finds room there.
at::Tensor empty_gradient_with_room(const at::Tensor& x);

/// The gradients [..., n_i] as one tensor [..., n_1 + ..]: themselves where they are its columns; else copied into the
/// room behind the first ones, if there is any that nobody else holds, or into a new tensor. Undefined ones are 0, of
/// the widths given.
at::Tensor gather_columns(at::TensorList gradients, at::IntArrayRef widths);

}  // namespace comba
