#pragma once

#include <torch/ordered_dict.h>
#include <torch/types.h>

/// The mixers' equations token by token, from LibTorch's elementary operations, in the dtype of the parameters: double,
/// to judge others. They share no code with what they judge.  x [B, T, D] -> [B, T, D]
namespace comba::nn::reference {

using Parameters = torch::OrderedDict<std::string, at::Tensor>;

at::Tensor attention(const Parameters& p, const at::Tensor& x, int64_t num_heads, int64_t num_kv_heads, int64_t window);
at::Tensor linear_attention(const Parameters& p, const at::Tensor& x, int64_t num_heads);
at::Tensor retnet(const Parameters& p, const at::Tensor& x, int64_t num_heads);
at::Tensor gla(const Parameters& p, const at::Tensor& x, int64_t num_heads);
/// `layer` counts from 0; lower_bounds [L, D] is among the parameters.
at::Tensor hgrn2(const Parameters& p, const at::Tensor& x, int64_t num_heads, int64_t layer);
at::Tensor mamba2(const Parameters& p, const at::Tensor& x, int64_t head_dim, int64_t state_size, int64_t num_groups);
at::Tensor gated_slot_attention(const Parameters& p, const at::Tensor& x, int64_t num_heads);
/// first_v [B, T, D]: undefined in the first layer.
at::Tensor rwkv7(const Parameters& p, const at::Tensor& x, const at::Tensor& first_v, int64_t head_dim);

enum class Inner { linear, mlp, miras };
/// The gradients of the inner loss are autograd's.
at::Tensor inner_learning(const Parameters& p, const at::Tensor& x, int64_t num_heads, Inner inner, double rate,
                          double power);

/// Norm eps of all of them.
inline constexpr double kEps = 1e-5;

}  // namespace comba::nn::reference
