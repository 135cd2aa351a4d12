#include "nn/mixers/decay_attention.h"

#include "nn/mixers/chunks.h"
#include "nn/mixers/decayed_scores.h"
#include "nn/mixers/packed_sequences.h"

namespace comba::nn {
namespace {

/// The inputs of one call in chunks, X = 1, K or V being the channels that decay.
struct Chunks {
  Chunks(const DecayAttentionInputs& inputs, at::ScalarType dtype)
      : q(in_chunks(inputs.q, dtype) * inputs.scale), k(in_chunks(inputs.k, dtype)), v(in_chunks(inputs.v, dtype)) {
    if (inputs.decay_of == DecayOf::nothing) return;
    const at::Tensor g = inputs.decay_of == DecayOf::head ? inputs.g.unsqueeze(-1) : inputs.g;
    log = in_chunks(g, dtype).clamp_min(kSmallestLogDecay).cumsum(-2);
    last = log.narrow(-2, log.size(-2) - 1, 1);
  }

  at::Tensor q, k;  // [B, H, NC, C, K]
  at::Tensor v;     // [B, H, NC, C, V]
  at::Tensor log;   // [B, H, NC, C, X]  cumulative within the chunk
  at::Tensor last;  // [B, H, NC, 1, X]  of the whole chunk
};

/// What the tokens of a chunk read of each other.  [B, H, NC, C, V]
at::Tensor read_within(const Chunks& x, DecayOf decay_of) {
  if (decay_of == DecayOf::value) return decayed_sums(x.q, x.k, x.v, x.log);
  if (decay_of == DecayOf::key) {
    return at::matmul(decayed_scores(x.q, x.k, x.log, x.log, /*with_diagonal=*/true), x.v);
  }
  at::Tensor scores = at::matmul(x.q, x.k.transpose(-1, -2));
  if (decay_of == DecayOf::head) scores = scores * (x.log - x.log.transpose(-1, -2)).clamp_max(0).exp();
  return at::matmul(scores.tril(), x.v);
}

/// What they read of the state before the chunk.  states [B, H, NC, K, V] -> [B, H, NC, C, V]
at::Tensor read_before(const Chunks& x, DecayOf decay_of, const at::Tensor& states) {
  if (decay_of == DecayOf::nothing) return at::matmul(x.q, states);
  if (decay_of == DecayOf::value) return at::matmul(x.q, states) * x.log.exp();
  return at::matmul(x.q * x.log.exp(), states);
}

/// What each chunk adds to the state.  [B, H, NC, K, V]
at::Tensor writes(const Chunks& x, DecayOf decay_of) {
  if (decay_of == DecayOf::nothing) return at::matmul(x.k.transpose(-1, -2), x.v);
  const at::Tensor rest = (x.last - x.log).exp();
  if (decay_of == DecayOf::value) return at::matmul(x.k.transpose(-1, -2), x.v * rest);
  return at::matmul((x.k * rest).transpose(-1, -2), x.v);
}

/// What a whole chunk leaves of the state: factors [B, H, NC, K or 1, V or 1].
at::Tensor remainders(const Chunks& x, DecayOf decay_of) {
  const at::Tensor factors = x.last.exp();
  return decay_of == DecayOf::value ? factors : factors.transpose(-1, -2);
}

}  // namespace

DecayAttentionOutput decay_attention(const DecayAttentionInputs& inputs, const at::Tensor& initial_state) {
  const at::ScalarType dtype = wide_dtype(inputs.q);
  const DecayOf decay_of = inputs.decay_of;
  const Chunks x(inputs, dtype);
  const at::Tensor added = writes(x, decay_of);  // [B, H, NC, K, V]
  const at::Tensor kept = decay_of == DecayOf::nothing ? at::Tensor() : remainders(x, decay_of);
  at::Tensor state = initial_state.defined() ? initial_state.to(dtype) : at::zeros_like(added.select(2, 0));
  std::vector<at::Tensor> states;
  for (int64_t chunk = 0; chunk < added.size(2); ++chunk) {
    states.push_back(state);
    state = added.select(2, chunk) + (kept.defined() ? state * kept.select(2, chunk) : state);
  }
  const at::Tensor o = read_within(x, decay_of) + read_before(x, decay_of, at::stack(states, 2));
  return {.o = from_chunks(o, inputs.q.size(1)).to(inputs.q.scalar_type()), .final_state = state};
}

at::Tensor decay_attention_with_state(const DecayAttentionInputs& inputs, const TokenSpan& span,
                                      const at::Tensor* state) {
  if (state == nullptr) {
    return over_sequences(span.cu_seqlens, inputs.q.size(1), /*dim=*/1, [&](int64_t begin, int64_t length) {
      DecayAttentionInputs sequence = inputs;
      for (at::Tensor* x : {&sequence.q, &sequence.k, &sequence.v, &sequence.g}) {
        if (x->defined()) *x = x->narrow(1, begin, length);
      }
      return decay_attention(sequence).o;
    });
  }
  // Backward may still need the state as it was.
  const DecayAttentionOutput output = decay_attention(inputs, state->clone());
  state->copy_(output.final_state.detach());
  return output.o;
}

}  // namespace comba::nn
