#include "nn/mixers/decayed_scores.h"

namespace comba::nn {
namespace {

/// The early and the late halves of all blocks of 2 `half` tokens.  [.., C, X] -> 2 times [.., C / (2 half), half, X]
struct Halves {
  Halves(const at::Tensor& x, int64_t half) {
    const at::Tensor blocks = x.unflatten(-2, {x.size(-2) / (2 * half), 2, half});
    early = blocks.select(-3, 0);
    late = blocks.select(-3, 1);
  }

  /// The last token of the early half, where the halves meet.
  at::Tensor border() const { return early.narrow(-2, early.size(-2) - 1, 1); }

  at::Tensor early, late;
};

}  // namespace

at::Tensor decayed_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& log_q, const at::Tensor& log_k,
                          bool with_diagonal) {
  const at::Tensor diagonal = with_diagonal ? (q * k).sum(-1) : at::zeros_like(q.select(-1, 0));  // [.., C]
  at::Tensor scores = diagonal.unsqueeze(-1).unsqueeze(-1);                                       // [.., C, 1, 1]
  for (int64_t half = 1; half < q.size(-2); half *= 2) {
    const at::Tensor border = Halves(log_k, half).border();
    const at::Tensor late = Halves(q, half).late * (Halves(log_q, half).late - border).exp();
    const at::Tensor early = Halves(k, half).early * (border - Halves(log_k, half).early).exp();
    const at::Tensor cross = at::matmul(late, early.transpose(-1, -2));           // [.., N, half, half]
    const at::Tensor triangles = scores.unflatten(-3, {scores.size(-3) / 2, 2});  // [.., N, 2, half, half]
    const at::Tensor above = at::cat({triangles.select(-3, 0), at::zeros_like(cross)}, -1);
    scores = at::cat({above, at::cat({cross, triangles.select(-3, 1)}, -1)}, -2);  // [.., N, 2 half, 2 half]
  }
  return scores.squeeze(-3);
}

at::Tensor decayed_sums(const at::Tensor& q, const at::Tensor& k, const at::Tensor& x, const at::Tensor& log) {
  at::Tensor sums = (q * k).sum(-1, /*keepdim=*/true) * x;
  for (int64_t half = 1; half < q.size(-2); half *= 2) {
    const Halves rates(log, half);
    const at::Tensor early = Halves(x, half).early * (rates.border() - rates.early).exp();
    const at::Tensor scores = at::matmul(Halves(q, half).late, Halves(k, half).early.transpose(-1, -2));
    const at::Tensor late = at::matmul(scores, early) * (rates.late - rates.border()).exp();  // [.., N, half, V]
    sums = sums + at::stack({at::zeros_like(late), late}, -3).flatten(-4, -2);
  }
  return sums;
}

}  // namespace comba::nn
