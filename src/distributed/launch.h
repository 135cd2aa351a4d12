#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace comba::distributed {

/// What a launcher tells each of the processes that it starts together.
struct Launch {
  int rank = 0;                     ///< this process, in [0, size)
  int size = 1;                     ///< processes in all
  int local_rank = 0;               ///< this process among those of its machine
  std::string address = {};         ///< of the machine where they meet
  std::uint16_t port = 0;           ///< where they meet on it
  int attempt = 0;                  ///< how often the launcher has started them anew
  bool launcher_has_store = false;  ///< the launcher serves the meeting place; else rank 0 does
  std::string interface = {};       ///< network interface to use; empty: found by itself
};

/// Value of an environment variable, or none when it is unset.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

/// What torchrun says (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or where it says nothing, Slurm's srun
/// (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID) together with MASTER_ADDR and MASTER_PORT. One process alone when
/// neither says anything. GLOO_SOCKET_IFNAME names the interface. Throws Error(invalid_argument) naming the variable
/// that is missing or makes no sense.
Launch read_launch(const Environment& environment);

}  // namespace comba::distributed
