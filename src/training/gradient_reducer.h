#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/process_group.h"
#include "training/shard_layout.h"

namespace comba::training {

/// Sums gradients over the processes of a group while the backward pass still produces others: as soon as every
/// parameter that has a part in a bucket has its gradient, the bucket's reduce-scatter is started. Buckets are started
/// in one order everywhere: first those of linear maps alone, from the last layer down, then the others.
///
/// With a buffer for the whole gradient (ZeRO stage 1) the passes of a step are added up in it, and the last pass is
/// reduced; without (stage 2) each pass is, bucket by bucket, and only this process's share is ever kept. Where the
/// layout has one shard (stage 0) the buckets are all-reduced in the buffer.
class GradientReducer {
 public:
  /// `own` [shard size] receives the sums. `whole` [layout size]: undefined for stage 2, `own` for stage 0. is_early:
  /// by parameter, whether its gradient comes in the reverse order of the parameters. `group` must outlive this object.
  GradientReducer(std::vector<at::Tensor> parameters, const std::vector<bool>& is_early, const ShardLayout& layout,
                  distributed::ProcessGroup& group, at::Tensor whole, at::Tensor own);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Before a forward and backward pass: whether it is the first and whether it is the last of the step.
  void begin_pass(bool first, bool last);
  /// After it. Parameters without a gradient have one of zero. Returns when the sums of this pass are in `own`.
  void end_pass();

 private:
  class Hook;

  struct Bucket {
    std::int64_t missing = 0;  // parameters whose gradient is not there yet
    at::Tensor source;         // [bucket size]
    at::Tensor sum;            // [piece size]
    std::unique_ptr<distributed::Pending> pending;
  };

  /// Takes the gradient of a parameter away from it.
  void take(std::size_t parameter);
  void place(std::size_t parameter, const at::Tensor& gradient);
  at::Tensor source_of(std::int64_t bucket);
  void start_complete_buckets();

  std::vector<at::Tensor> parameters_;
  ShardLayout layout_;
  distributed::ProcessGroup& group_;
  at::Tensor whole_, own_;
  std::vector<std::int64_t> order_;  // of starting buckets
  std::vector<Bucket> buckets_;
  std::vector<bool> taken_;  // by parameter, in this pass
  std::size_t num_started_ = 0;
  bool in_pass_ = false, first_ = true, reduces_ = true;
};

}  // namespace comba::training
