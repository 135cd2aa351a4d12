#pragma once

#include <torch/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distributed/process_group.h"
#include "models/safetensors.h"
#include "training/gradient_reducer.h"
#include "training/optimizer.h"
#include "training/shard_layout.h"

namespace comba::training {

/// A trained tensor and its name in the checkpoint.
struct NamedParameter {
  std::string name;
  at::Tensor tensor;
  /// Decayed are matrices (linear maps, embeddings, convolution filters), not vectors (norm weights, biases, A_log,
  /// dt_bias, D, decay).
  bool weight_decay = tensor.dim() == 2 || (tensor.dim() > 2 && tensor.size(0) > 1);
  /// Whether matrix products read it and nothing else, so that a copy in their dtype can take its place.
  bool is_linear = tensor.dim() == 2 && !name.ends_with("embeddings.weight");
};

/// How training holds parameters.
struct FlatOptions {
  std::optional<at::ScalarType> linear_dtype = {};   ///< of the copies of linear maps; none: no copies
  std::int64_t bucket_size = std::int64_t{1} << 24;  ///< elements that processes exchange at once
  int zero_stage = 1;                                ///< 0, 1 or 2; makes no difference in a process alone
};

/// The fp32 parameters of a model as training holds them: one after the other in one buffer, their gradients in another
/// and, for matrix products in 16 bits, rounded copies of the linear maps in a third. First come the linear maps, then
/// what else is decayed, then the rest, each in the order given and without gaps, so that what neighbours in a module
/// does so here.
///
/// Every process of a group has all values and updates a share of them (ZeRO stage 1, Rajbhandari et al. 2020); in
/// stage 2 it also keeps no more than its share of the gradients, and in stage 0 each updates everything. See
/// GradientReducer. A step:
///
///     begin_pass(), CopiesInUse { forward, backward, end_pass() }  for each micro-batch
///     ->  update of own()  ->  gather_values()
///
/// Every function that moves data between processes must be called by all and throws LostProcess.
class FlatParameters {
 public:
  /// The parameters become views of the buffer. `group` must outlive this object.
  FlatParameters(std::vector<NamedParameter> parameters, distributed::ProcessGroup& group,
                 const FlatOptions& options = {});

  /// What this process updates, in few pieces. Together the processes own each element once; in stage 0 each owns all.
  const std::vector<FlatPiece>& own() const { return own_; }

  /// While it lives, the linear maps that the model reads are the rounded copies, and their gradients are as wide.
  class CopiesInUse {
   public:
    explicit CopiesInUse(FlatParameters& parameters) : parameters_(parameters) { parameters_.show(/*copies=*/true); }
    ~CopiesInUse() { parameters_.show(/*copies=*/false); }
    CopiesInUse(const CopiesInUse&) = delete;
    CopiesInUse& operator=(const CopiesInUse&) = delete;

   private:
    FlatParameters& parameters_;
  };

  /// Rounds the values anew. To be called when they were changed by other than gather_values().
  void refresh_copies();

  /// Before a forward and backward pass: whether it is the first and whether it is the last of the step.
  void begin_pass(bool first, bool last);
  /// After it: moves the gradients that it has left at the parameters to the buffer, and after the last pass lets those
  /// of own() be the sums over passes and processes. A parameter without gradient has one of zero.
  void end_pass();

  /// Sum of the squares of the gradients of own(), such that the sum over processes is that of all gradients.  [] f64
  at::Tensor square_of_gradients() const;

  /// The first parameter whose gradient has elements that are not finite; empty when there is none. After the last pass
  /// of a step; all processes must call it.
  std::string non_finite_gradient();

  /// Gives every process the values of the leading one.
  void broadcast_values();
  /// Gives every process the values that the others have updated.
  void gather_values();

  /// What belongs to the parameters by name, as PREFIX + name, from what belongs to own() in each process, one element
  /// beside the other; empty where the group is not led.
  models::NamedTensors gather(const std::string& prefix, const at::Tensor& own_elements);
  /// The inverse of gather: elements of own() from whole tensors, which must all be there in the parameters' shapes.
  void scatter(const std::string& prefix, const models::NamedTensors& whole, const at::Tensor& own_elements) const;

  const std::vector<NamedParameter>& parameters() const { return parameters_; }

 private:
  void show(bool copies);
  at::Tensor part_of(const at::Tensor& buffer, std::size_t parameter) const;
  void find_own();
  void make_reducer(int zero_stage);
  void collect_gradients();

  std::vector<NamedParameter> parameters_;
  distributed::ProcessGroup& group_;
  ShardLayout layout_;
  at::Tensor values_;                             // [layout size] f32
  at::Tensor own_gradients_;                      // [shard size] f32
  at::Tensor copies_;                             // [elements of linear maps], in the dtype of matrix products
  std::vector<at::Tensor> masters_, copy_views_;  // by parameter; no copy: undefined
  std::vector<ShardSlice> slices_;                // of this process's shard
  std::vector<at::Tensor> own_gradient_views_;    // of the slices
  std::vector<FlatPiece> own_;
  std::unique_ptr<GradientReducer> reducer_;  // in a group
  bool replaces_ = true;                      // this pass, what the buffer has
};

}  // namespace comba::training
