#pragma once

#include <functional>
#include <optional>

namespace comba::cli {

/// Makes `count` copies of this process, before it has threads or has touched a GPU, and returns in each of them its
/// number from 0; in this process, nothing. A copy ends when this process does.
std::optional<int> start_workers(int count);

/// Waits for all of them and passes on SIGINT and SIGTERM. The first that fails ends the others, and ToldElsewhere is
/// thrown with its exit code.
void wait_for_workers();

/// What `question` returns in a process of its own, from 0 to 254, so that this one stays without threads and GPUs;
/// nothing where it throws.
std::optional<int> ask_in_process(const std::function<int()>& question);

}  // namespace comba::cli
