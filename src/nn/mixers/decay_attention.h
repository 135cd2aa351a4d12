#pragma once

#include "nn/layer_state.h"

namespace comba::nn {

/// What the log decays of decay_attention belong to.
enum class DecayOf {
  nothing,  ///< no decay
  head,     ///< g [B, T, H]: one factor for the whole state
  key,      ///< g [B, T, H, K]: one for each row of the state
  value,    ///< g [B, T, H, V]: one for each column
};

struct DecayAttentionInputs {
  at::Tensor q;  ///< [B, T, H, K]
  at::Tensor k;  ///< [B, T, H, K]
  at::Tensor v;  ///< [B, T, H, V]
  at::Tensor g;  ///< log decays, at most 0
  DecayOf decay_of = DecayOf::nothing;
  double scale = 1.0;  ///< of q
};

struct DecayAttentionOutput {
  at::Tensor o;            ///< [B, T, H, V]  dtype of q
  at::Tensor final_state;  ///< [B, H, K, V]  f32, or f64 for f64 inputs
};

/// Linear attention with a decaying state, all T tokens at once, computed in fp32 (double inputs: in double):
///     S_t = e^{g_t} . S_{t-1} + k_t v_t^T,   o_t = S_t^T (scale q_t)
/// The rule of linear attention, RetNet, GLA, HGRN2 and Mamba2, and twice that of Gated Slot Attention. In chunks of 64
/// tokens: products inside a chunk, one update of the state between two. Strong decays lose nothing: no exponent is
/// above 0. Decays below e^-128 a token count as e^-128.
DecayAttentionOutput decay_attention(const DecayAttentionInputs& inputs, const at::Tensor& initial_state = {});

/// decay_attention over the tokens of one call.  `state` [B, H, K, V], when given, is read and advanced in place;
/// packed sequences each begin with none.  -> [B, T, H, V]
at::Tensor decay_attention_with_state(const DecayAttentionInputs& inputs, const TokenSpan& span,
                                      const at::Tensor* state);

}  // namespace comba::nn
