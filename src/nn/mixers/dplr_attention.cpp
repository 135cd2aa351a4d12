#include "nn/mixers/dplr_attention.h"

#include "nn/mixers/chunks.h"
#include "nn/mixers/decayed_scores.h"
#include "nn/mixers/packed_sequences.h"

namespace comba::nn {

DPLROutput dplr_attention(const DPLRInputs& inputs, const at::Tensor& initial_state) {
  const at::ScalarType dtype = wide_dtype(inputs.q);
  const at::Tensor q = in_chunks(inputs.q, dtype), k = in_chunks(inputs.k, dtype);  // [B, H, NC, C, K]
  const at::Tensor a = in_chunks(inputs.a, dtype), b = in_chunks(inputs.b, dtype);  // [B, H, NC, C, K]
  const at::Tensor v = in_chunks(inputs.v, dtype);                                  // [B, H, NC, C, V]
  const int64_t length = q.size(-2), num_chunks = q.size(2);
  const at::Tensor log = in_chunks(inputs.g, dtype).clamp_min(kSmallestLogDecay).cumsum(-2);
  const at::Tensor log_before =
      at::constant_pad_nd(log.narrow(-2, 0, length - 1), {0, 0, 1, 0});  // of the tokens before
  const at::Tensor last = log.narrow(-2, length - 1, 1);                 // [B, H, NC, 1, K]

  // u_i = a_i^T S^T_{i-1} [V]: what token i reads to correct, U = (I - <a, b>)^{-1} (<a, k> V + a S^T).
  const at::Tensor system = at::eye(length, q.options()) - decayed_scores(a, b, log_before, log, false);
  const at::Tensor from_values = at::matmul(decayed_scores(a, k, log_before, log, false), v);
  const at::Tensor solved = at::linalg_solve_triangular(system, at::cat({from_values, a * log_before.exp()}, -1),
                                                        /*upper=*/false, /*left=*/true, /*unitriangular=*/true);
  const at::Tensor read_inside = solved.narrow(-1, 0, v.size(-1));                       // [B, H, NC, C, V]
  const at::Tensor reader = solved.narrow(-1, v.size(-1), a.size(-1));                   // [B, H, NC, C, K]
  const at::Tensor written = at::matmul((k * (last - log).exp()).transpose(-1, -2), v);  // [B, H, NC, K, V]
  const at::Tensor writer = (b * (last - log).exp()).transpose(-1, -2);                  // [B, H, NC, K, C]
  const at::Tensor kept = last.exp().transpose(-1, -2);                                  // [B, H, NC, K, 1]

  at::Tensor state = initial_state.defined() ? initial_state.to(dtype) : at::zeros_like(written.select(2, 0));
  std::vector<at::Tensor> states, reads;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    states.push_back(state);
    reads.push_back(read_inside.select(2, chunk) + at::matmul(reader.select(2, chunk), state));
    state =
        kept.select(2, chunk) * state + written.select(2, chunk) + at::matmul(writer.select(2, chunk), reads.back());
  }
  const at::Tensor o = at::matmul(q * log.exp(), at::stack(states, 2)) +
                       at::matmul(decayed_scores(q, k, log, log, /*with_diagonal=*/true), v) +
                       at::matmul(decayed_scores(q, b, log, log, /*with_diagonal=*/true), at::stack(reads, 2));
  return {.o = from_chunks(o, inputs.q.size(1)).to(inputs.q.scalar_type()), .final_state = state};
}

at::Tensor dplr_attention_with_state(const DPLRInputs& inputs, const TokenSpan& span, const at::Tensor* state) {
  if (state == nullptr) {
    return over_sequences(span.cu_seqlens, inputs.q.size(1), /*dim=*/1, [&](int64_t begin, int64_t length) {
      DPLRInputs sequence = inputs;
      for (at::Tensor* x : {&sequence.q, &sequence.k, &sequence.v, &sequence.a, &sequence.b, &sequence.g}) {
        *x = x->narrow(1, begin, length);
      }
      return dplr_attention(sequence).o;
    });
  }
  // Backward may still need the state as it was.
  const DPLROutput output = dplr_attention(inputs, state->clone());
  state->copy_(output.final_state.detach());
  return output.o;
}

}  // namespace comba::nn
