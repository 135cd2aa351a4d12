#pragma once

#include <c10/core/Device.h>

#include <functional>

#include "base/stop_flag.h"
#include "distributed/launch.h"
#include "distributed/process_group.h"

namespace comba::cli {

/// Another process tells the user what went wrong, or that the run was stopped: this one ends without a word.
struct ToldElsewhere {
  int exit_code;
};

/// Runs `work` in each of the processes that were launched together; in one process alone it just calls it. An error in
/// any of them ends them all, and one tells it: the others throw ToldElsewhere. `prepare` comes first and returns the
/// device; what is on it, where it is a GPU, the processes exchange over NCCL.
void run_together(const distributed::Launch& launch, const StopFlag& stop, const std::function<c10::Device()>& prepare,
                  const std::function<void(distributed::ProcessGroup& group)>& work);

}  // namespace comba::cli
