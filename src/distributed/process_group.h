#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>

#include "comba/error.h"

namespace comba::distributed {

class Roster;

/// Another process of the group has ended or does not answer: nothing can be computed together any more.
class LostProcess : public Error {
 public:
  explicit LostProcess(const std::string& message) : Error(ErrorCode::io, message) {}
};

/// A call whose result is not there yet.
class Pending {
 public:
  virtual ~Pending() = default;
  /// Returns when the result is there. Throws LostProcess.
  virtual void wait() = 0;
};

/// Processes that compute together. Each calls the same functions in the same order with tensors of the same sizes, all
/// contiguous; a call returns when its result is there, or for tensors on a GPU when its current stream waits for it.
/// The same number of processes gives the same bits. Every function throws LostProcess.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;  ///< this process, in [0, size)
  virtual int size() const = 0;
  /// Whether this is the process that writes files and talks.
  bool leads() const { return rank() == 0; }

  /// tensor <- sum over the processes.
  virtual void all_reduce_sum(at::Tensor& tensor) = 0;
  /// tensor <- largest over the processes.
  virtual void all_reduce_max(at::Tensor& tensor) = 0;
  /// The same as all_reduce_sum, which goes on behind the caller's back until wait(): nobody may touch the tensor.
  virtual std::unique_ptr<Pending> start_all_reduce_sum(at::Tensor tensor) = 0;
  /// part [n] <- this process's n elements of the sum of `whole` [size * n] over the processes.
  virtual void reduce_scatter_sum(at::Tensor& part, at::Tensor& whole) = 0;
  /// The same, which goes on behind the caller's back until wait(): nobody may touch the tensors in between.
  virtual std::unique_ptr<Pending> start_reduce_scatter_sum(at::Tensor part, at::Tensor whole) = 0;
  /// whole [size * n] <- the parts [n] of all processes, in the order of their ranks.
  virtual void all_gather(at::Tensor& whole, at::Tensor& part) = 0;
  /// The same, in the leading process only; elsewhere `whole` is not looked at.
  virtual void gather(at::Tensor& whole, at::Tensor& part) = 0;
  /// tensor <- that of the leading process.
  virtual void broadcast(at::Tensor& tensor) = 0;
  /// Returns when all processes are here, however long one of them takes.
  virtual void barrier() = 0;
};

/// A process alone: every function leaves things as they are.
ProcessGroup& single_process();

/// How long a process may be late for what is computed together before it counts as lost.
inline constexpr std::chrono::minutes kCollectiveTimeout{30};

/// Whether this build has Gloo.
bool has_gloo();

/// The processes of the roster, over Gloo. Throws LostProcess when they cannot be connected, and Error(unsupported) in
/// a build without Gloo.
std::unique_ptr<ProcessGroup> make_gloo_group(const Roster& roster,
                                              std::chrono::milliseconds timeout = kCollectiveTimeout);

}  // namespace comba::distributed
