#include "distributed/launch.h"

#include <charconv>
#include <limits>

#include "base/message.h"

namespace comba::distributed {
namespace {

std::int64_t parse(const std::string& name, const std::string& text, std::int64_t least, std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(failure == std::errc() && end == text.data() + text.size() && value >= least && value <= most,
          ErrorCode::invalid_argument, "[launch] the environment variable ", name, " must be a number in [", least,
          ", ", most, "]; got '", text, "'");
  return value;
}

/// The names under which a launcher says who a process is.
struct Names {
  const char* rank;
  const char* size;
  const char* local_rank;
};
constexpr Names kTorchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK"};
constexpr Names kSlurm = {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"};

class Reader {
 public:
  Reader(const Environment& environment, const Names& names) : environment_(environment), names_(names) {}

  std::string text(const char* name) const {
    const auto value = environment_(name);
    require(value.has_value(), ErrorCode::invalid_argument, "[launch] the environment variable ", name, " must be set",
            " where ", given(), " is; got none (start with torchrun or srun, or unset ", given(), " for one process)");
    return *value;
  }

  int number(const char* name, std::int64_t least, std::int64_t most) const {
    return static_cast<int>(parse(name, text(name), least, most));
  }

  int number_or_zero(const char* name, std::int64_t most) const {
    return environment_(name) ? number(name, 0, most) : 0;
  }

 private:
  const char* given() const { return environment_(names_.size) ? names_.size : names_.rank; }

  const Environment& environment_;
  Names names_;
};

}  // namespace

Launch read_launch(const Environment& environment) {
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  const bool torchrun = environment(kTorchrun.rank) || environment(kTorchrun.size);
  const Names& names = torchrun ? kTorchrun : kSlurm;
  if (!environment(names.rank) && !environment(names.size)) return {};
  const Reader reader(environment, names);
  Launch launch;
  launch.size = reader.number(names.size, 1, kMost);
  launch.rank = reader.number(names.rank, 0, launch.size - 1);
  launch.local_rank = reader.number_or_zero(names.local_rank, launch.size - 1);
  if (launch.size == 1) return launch;
  launch.address = reader.text("MASTER_ADDR");
  launch.port = static_cast<std::uint16_t>(reader.number("MASTER_PORT", 1, 65535));
  launch.attempt = torchrun ? reader.number_or_zero("TORCHELASTIC_RESTART_COUNT", kMost) : 0;
  launch.launcher_has_store = torchrun && environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.interface = environment("GLOO_SOCKET_IFNAME").value_or("");
  return launch;
}

}  // namespace comba::distributed
