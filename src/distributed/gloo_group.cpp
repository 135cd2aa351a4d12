#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "distributed/c10d_group.h"
#include "distributed/process_group.h"
#include "distributed/roster.h"

namespace comba::distributed {
namespace {

using Gloo = c10d::ProcessGroupGloo;

std::shared_ptr<::gloo::transport::Device> make_device(const Launch& launch) {
  if (!launch.interface.empty()) return Gloo::createDeviceForInterface(launch.interface);
  const bool one_machine = launch.address == "localhost" || launch.address.starts_with("127.");
  return one_machine ? Gloo::createDeviceForHostname("127.0.0.1") : Gloo::createDefaultDevice();
}

}  // namespace

bool has_gloo() { return true; }

std::unique_ptr<ProcessGroup> make_gloo_group(const Roster& roster, std::chrono::milliseconds timeout) {
  return told_plainly("connecting the processes", [&] {
    const auto options = Gloo::Options::create(timeout);
    options->devices.push_back(make_device(roster.launch()));
    options->threads = 1;  // one call at a time
    return std::make_unique<C10dGroup>(
        c10::make_intrusive<Gloo>(roster.store(), roster.rank(), roster.size(), options));
  });
}

}  // namespace comba::distributed
