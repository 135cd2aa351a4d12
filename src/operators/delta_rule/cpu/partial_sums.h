#pragma once

#include <cstdint>

#include "operators/delta_rule/cpu/layout.h"
#include "operators/delta_rule/element.h"
#include "operators/delta_rule/problem.h"

namespace comba::delta_rule::cpu {

/// Gradients of per-head parameters: one sum in double for each sequence and head, written by the one worker that has
/// them, then added up over the sequences in their order, so that the bits do not depend on the threads.
class PartialSums {
 public:
  PartialSums(const Problem& x, Arena& arena)
      : H_(x.H), HV_(x.HV), N_(x.N), sums_(reinterpret_cast<double*>(arena.floats(2 * 2 * N_ * (H_ + HV_)))) {}

  void clear() {
    for (std::int64_t i = 0; i < 2 * N_ * (H_ + HV_); ++i) sums_[i] = 0;
  }

  double& db(std::int64_t n, std::int64_t head) { return sums_[n * H_ + head]; }
  double& dd(std::int64_t n, std::int64_t head) { return sums_[(N_ + n) * H_ + head]; }
  double& dA_log(std::int64_t n, std::int64_t head) { return sums_[2 * N_ * H_ + n * HV_ + head]; }
  double& ddt_bias(std::int64_t n, std::int64_t head) { return sums_[2 * N_ * H_ + (N_ + n) * HV_ + head]; }

  /// Writes the sums over the sequences into the gradients that were asked for.
  void store(const DeltaRuleBackward& args) {
    const auto reduce = [this](const View& view, double& (PartialSums::*part)(std::int64_t, std::int64_t)) {
      for (std::int64_t head = 0; view.given() && head < view.sizes[0]; ++head) {
        double sum = 0;
        for (std::int64_t n = 0; n < N_; ++n) sum += (this->*part)(n, head);
        delta_rule::store(view, offset_of(view, head), static_cast<float>(sum));
      }
    };
    reduce(args.db, &PartialSums::db);
    reduce(args.dd, &PartialSums::dd);
    reduce(args.dA_log, &PartialSums::dA_log);
    reduce(args.ddt_bias, &PartialSums::ddt_bias);
  }

 private:
  std::int64_t H_, HV_, N_;
  double* sums_;
};

}  // namespace comba::delta_rule::cpu
