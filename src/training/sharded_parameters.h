#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "distributed/process_group.h"
#include "models/safetensors.h"
#include "training/optimizer.h"
#include "training/shard_layout.h"

namespace comba::training {

/// The parameters of a model that every process of a group has whole, and that each updates a share of (ZeRO stage 1,
/// Rajbhandari et al. 2020). One step is
///
///     backward in every process  ->  reduce_gradients()  ->  update of own()  ->  gather_values()
///
/// A process alone owns the parameters themselves, and nothing is copied. Every function that moves data must be called
/// by all processes and throws LostProcess.
class ShardedParameters {
 public:
  /// `group` must outlive this object.
  ShardedParameters(std::vector<NamedParameter> parameters, distributed::ProcessGroup& group);

  /// Slices of the parameters, as views, which this process updates. Together the processes own each element once.
  const std::vector<NamedParameter>& own() const { return own_; }

  /// Gives every process the values of the leading one.
  void broadcast_values();

  /// Lets the gradients of own() be the sums over the processes. One that no process has stays undefined.
  void reduce_gradients();

  /// Gives every process the values that the others have updated.
  void gather_values();

  /// The optimizer state of the whole parameters, from that of own() in each process; empty where the group is not led.
  models::NamedTensors gather_state(const models::NamedTensors& own_state);

  /// The part of a whole optimizer state that belongs to own(). Throws Error(io) for a tensor of another shape.
  models::NamedTensors own_state(const models::NamedTensors& whole_state) const;

 private:
  at::Tensor part_of(at::Tensor& whole, std::size_t parameter) const;
  void copy_gradients();

  std::vector<NamedParameter> parameters_;
  distributed::ProcessGroup& group_;
  ShardLayout layout_;
  std::vector<ShardSlice> slices_;  // of the shard of this process, one for each of own_
  std::vector<NamedParameter> own_;
  at::Tensor all_;        // [size * shard_size]   the parameters or their gradients, one after the other
  at::Tensor gradients_;  // [shard_size]
  at::Tensor values_;     // [shard_size]
};

}  // namespace comba::training
