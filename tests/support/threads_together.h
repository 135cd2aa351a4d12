#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/stop_flag.h"
#include "distributed/launch.h"
#include "distributed/process_group.h"
#include "distributed/roster.h"

/// A group of which each process is a thread of this one.
namespace comba::testing {

/// A TCP port that nothing listens on.
inline std::uint16_t free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t size = sizeof address;
  const bool bound = ::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(socket);
  return bound ? ntohs(address.sin_port) : 0;
}

/// Runs `work` with the launch of each rank in a thread of its own; rethrows the error of the lowest rank that has one.
inline void run_launches(int size, const std::function<void(const distributed::Launch&)>& work) {
  // c10d's record of past collectives is one for the whole process, and not safe for groups in several threads.
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1);
  const std::uint16_t port = free_port();
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        work({.rank = rank, .size = size, .local_rank = rank, .address = "127.0.0.1", .port = port});
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

/// Runs `work` in each process of a Gloo group.
inline void run_group(int size, const std::function<void(distributed::ProcessGroup&)>& work) {
  run_launches(size, [&](const distributed::Launch& launch) {
    const StopFlag stop;
    const distributed::Roster roster(launch, stop, std::chrono::seconds(30));
    const auto group = distributed::make_gloo_group(roster, std::chrono::seconds(30));
    work(*group);
    group->barrier();
  });
}

}  // namespace comba::testing
