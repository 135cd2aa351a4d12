#include "run_together.h"

#include <exception>
#include <memory>

#include "base/interrupted.h"
#include "base/message.h"
#include "command.h"
#include "distributed/roster.h"

namespace comba::cli {

void run_together(const distributed::Launch& launch, const StopFlag& stop,
                  const std::function<void(distributed::ProcessGroup& group)>& work) {
  if (launch.size == 1) return work(distributed::single_process());
  distributed::Roster roster(launch, stop);
  try {
    const std::unique_ptr<distributed::ProcessGroup> group = distributed::make_gloo_group(roster);
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
