#pragma once

#include <ATen/ATen.h>

/// Products of queries and keys whose every channel decays at a rate of its own, within one chunk of C tokens. The
/// chunk is halved again and again: pairs of a late and an early half meet at the border between them, so that both
/// exponents are at most 0, whatever the decays are, and all the work is in matrix products.
namespace comba::nn {

/// A_ij = sum_c q_ic k_jc e^{log_q_ic - log_k_jc}  for j < i, and for j = i if asked for;  0 elsewhere.
/// q, k, log_q, log_k [.., C, K], C a power of two -> [.., C, C].  log_k are cumulative log decays, which fall along C,
/// and log_q_i <= log_k_j for j < i; on the diagonal they are taken to be equal.
at::Tensor decayed_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& log_q, const at::Tensor& log_k,
                          bool with_diagonal);

/// o_iv = sum_{j <= i} (q_i . k_j) x_jv e^{log_iv - log_jv}: the channels of the values decay.
/// q, k [.., C, K], x, log [.., C, V], C a power of two -> [.., C, V]
at::Tensor decayed_sums(const at::Tensor& q, const at::Tensor& k, const at::Tensor& x, const at::Tensor& log);

}  // namespace comba::nn
