#include "nn/mixers/retnet.h"

#include "libtorch/positions.h"
#include "nn/mixers/chunks.h"
#include "nn/rotary_embedding.h"

namespace comba::nn {
namespace {

constexpr double kRopeTheta = 10000;

}  // namespace

at::Tensor RetNetMixer::direction(const at::Tensor& projected, const TokenSpan& span) const {
  const int64_t num_tokens = projected.size(1);
  const at::Tensor positions = span.cu_seqlens.defined()
                                   ? positions_in_sequences(span.cu_seqlens, num_tokens)
                                   : at::arange(num_tokens, projected.options().dtype(at::kLong)) + span.first_position;
  return rotary_embedding(projected.transpose(1, 2), positions, kRopeTheta).transpose(1, 2);
}

void RetNetMixer::set_decay(DecayAttentionInputs& inputs, const at::Tensor& x) {
  const at::Tensor head = at::arange(options_.num_heads, x.options().dtype(at::kDouble));
  const at::Tensor log_decay = at::log1p(-at::exp2(-5 - head)).to(wide_dtype(x));
  inputs.decay_of = DecayOf::head;
  inputs.g = log_decay.expand({x.size(0), x.size(1), options_.num_heads});
}

MixerFacts RetNetMixer::facts(int64_t num_tokens) const {
  MixerFacts facts = LinearAttentionMixer::facts(num_tokens);
  facts.rule = "a S + v k^T with a fixed, o = S q";
  facts.rule_flops *= 5.0 / 4;
  return facts;
}

}  // namespace comba::nn
