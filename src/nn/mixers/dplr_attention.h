#pragma once

#include "nn/layer_state.h"

namespace comba::nn {

/// Inputs of dplr_attention.
struct DPLRInputs {
  at::Tensor q;  ///< [B, T, H, K]
  at::Tensor k;  ///< [B, T, H, K]
  at::Tensor v;  ///< [B, T, H, V]
  at::Tensor a;  ///< [B, T, H, K]  the direction that is read of the state
  at::Tensor b;  ///< [B, T, H, K]  the direction into which it is written
  at::Tensor g;  ///< [B, T, H, K]  log decays, at most 0
};

struct DPLROutput {
  at::Tensor o;            ///< [B, T, H, V]  dtype of q
  at::Tensor final_state;  ///< [B, H, K, V]  f32, or f64 for f64 inputs
};

/// The delta rule with a diagonal-plus-low-rank transition, the rule of RWKV7 (arXiv 2503.14456), computed in fp32:
///     S_t = S_{t-1} (diag(e^{g_t}) + a_t b_t^T) + v_t k_t^T,   o_t = S_t q_t        (stored: S^T)
/// In chunks of 64 tokens: what the tokens of a chunk read of each other's corrections is a triangular system. No
/// exponent is above 0. The norms of a and b must keep the transition stable: |a| |b| of about 1 and less.
DPLROutput dplr_attention(const DPLRInputs& inputs, const at::Tensor& initial_state = {});

/// dplr_attention over the tokens of one call; `state` [B, H, K, V], when given, is read and advanced in place.
at::Tensor dplr_attention_with_state(const DPLRInputs& inputs, const TokenSpan& span, const at::Tensor* state);

}  // namespace comba::nn
