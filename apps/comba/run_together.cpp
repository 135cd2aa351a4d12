#include "run_together.h"

#include <exception>
#include <memory>

#include "base/interrupted.h"
#include "base/message.h"
#include "command.h"
#include "distributed/gpu_group.h"
#include "distributed/roster.h"
#include "libtorch/cuda_library.h"

namespace comba::cli {
namespace {

std::unique_ptr<distributed::ProcessGroup> make_group(const distributed::Roster& roster, c10::Device device) {
  if (device.is_cpu()) return distributed::make_gloo_group(roster);
  const auto make_nccl = reinterpret_cast<distributed::MakeNccl>(cuda_function("comba_make_nccl"));
  return distributed::make_gpu_group(roster, device.index(), make_nccl);
}

}  // namespace

void run_together(const distributed::Launch& launch, const StopFlag& stop, const std::function<c10::Device()>& prepare,
                  const std::function<void(distributed::ProcessGroup& group)>& work) {
  if (launch.size == 1) {
    prepare();
    return work(distributed::single_process());
  }
  distributed::Roster roster(launch, stop);
  try {
    const c10::Device device = prepare();
    roster.wait_for_all();
    const std::unique_ptr<distributed::ProcessGroup> group = make_group(roster, device);
    work(*group);
  } catch (const Interrupted& end) {  // all were, after the same step
    if (launch.rank != 0) throw ToldElsewhere{128 + end.signal_number()};
    throw;
  } catch (const distributed::LostProcess& loss) {
    const auto text = roster.tells_loss(loss.what());
    if (!text) throw ToldElsewhere{kFailure};
    throw Error(ErrorCode::io, concat(*text, " (--resume goes on from the newest checkpoint)"));
  } catch (const std::exception& error) {
    if (!roster.tells_failure()) throw ToldElsewhere{exit_code_of(error)};
    throw;
  }
}

}  // namespace comba::cli
