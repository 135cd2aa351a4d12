#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "distributed/process_group.h"

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace comba::distributed {

/// A new NCCL backend, which the caller owns: a function of the library that is linked with NCCL.
using MakeNccl = c10d::Backend* (*)(c10d::Store* store, int rank, int size, int gpu, std::int64_t timeout_ms);

/// The processes of the roster, each with a GPU of its own: tensors on the GPU go over NCCL, on streams of its own,
/// those on the CPU over Gloo, and so does whatever a process waits for. Throws as make_gloo_group does.
std::unique_ptr<ProcessGroup> make_gpu_group(const Roster& roster, int gpu, MakeNccl make_nccl,
                                             std::chrono::milliseconds timeout = kCollectiveTimeout);

}  // namespace comba::distributed
