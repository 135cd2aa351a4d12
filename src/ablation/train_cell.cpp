#include "ablation/train_cell.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/file.h"
#include "base/interrupted.h"
#include "base/message.h"
#include "models/causal_lm.h"
#include "training/trainer.h"
#include "training/training_checkpoint.h"

namespace comba::ablation {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kCheckpoint = "checkpoint";
constexpr const char* kProgress = "progress.json";

bool is_due(std::int64_t interval, std::int64_t step) { return interval > 0 && step % interval == 0; }

class RunningCell {
 public:
  RunningCell(const CellRun& run, CellObserver& observer)
      : run_(run),
        observer_(observer),
        trainer_(make_trainer()),
        interval_(std::max<std::int64_t>(1, run.config.steps / run.points)) {
    read_progress();
    for (const at::Tensor& parameter : trainer_.model().parameters()) num_parameters_ += parameter.numel();
  }

  CellResult run(const StopFlag& stop) {
    observer_.on_start(run_, num_parameters_, progress_);
    try {
      train(stop);
      progress_.heldout = score();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::numerical) throw;
      progress_.diverged = true;
    }
    return {.num_parameters = num_parameters_, .progress = progress_};
  }

 private:
  bool has_checkpoint() const { return fs::exists(run_.directory / kCheckpoint); }

  training::Trainer make_trainer() const {
    const fs::path checkpoint = run_.directory / kCheckpoint;
    if (has_checkpoint()) {
      training::require_same_run(checkpoint, run_.model, run_.config, run_.train);
      return training::load_training_checkpoint(checkpoint, run_.train, run_.config, distributed::single_process(),
                                                run_.device, run_.step);
    }
    auto model = std::make_shared<models::CausalLM>(run_.model);
    model->initialize(static_cast<std::uint64_t>(run_.config.seed));
    model->to(run_.device);
    return training::Trainer(std::move(model), run_.train, run_.config, distributed::single_process(), run_.step);
  }

  /// The curve up to the checkpoint: it may know more when the process was killed before the checkpoint was whole.
  void read_progress() {
    if (!has_checkpoint()) return;
    const fs::path path = run_.directory / kProgress;
    try {
      progress_ = progress_from_json(nlohmann::ordered_json::parse(read_file(path)));
    } catch (const nlohmann::json::exception&) {
      throw Error(ErrorCode::io, concat("[ablation] the file must be of a cell in progress; got ", path.string()));
    }
    if (progress_.step == trainer_.num_steps()) return;
    progress_.step = trainer_.num_steps();
    progress_.open_loss = 0;
    progress_.open_steps = 0;
    std::erase_if(progress_.curve, [&](const CurvePoint& point) { return point.step > progress_.step; });
  }

  void save() {
    fs::create_directories(run_.directory);
    write_file_atomically(run_.directory / kProgress, to_json(progress_).dump() + '\n');
    training::save_training_checkpoint(trainer_, run_.train, run_.directory / kCheckpoint);
  }

  void train(const StopFlag& stop) {
    Clock::time_point start = Clock::now();
    const auto stop_clock = [&] { progress_.seconds += std::chrono::duration<double>(Clock::now() - start).count(); };
    while (trainer_.num_steps() < run_.config.steps) {
      trainer_.start_step();
      const std::int64_t step = trainer_.num_steps();
      const bool stops = stop.requested(),
                 waits = stops || is_point(step) || is_due(run_.config.checkpoint_interval, step);
      finish_steps(/*but=*/run_.device.is_cpu() || waits ? 0 : 1);
      if (!waits) continue;
      stop_clock();
      if (is_point(step)) add_point(step);
      const bool last = step == run_.config.steps;
      if (stops || (is_due(run_.config.checkpoint_interval, step) && !last)) save();
      if (stops && !last) {
        throw Interrupted(stop.signal_number(), concat("[ablation] stopped after step ", step,
                                                       " of a cell; everything is saved (continue with --resume)"));
      }
      start = Clock::now();
    }
  }

  /// A GPU computes a step while the next one is started.
  void finish_steps(std::int64_t but) {
    while (trainer_.num_unfinished() > but) {
      const training::StepReport report = trainer_.finish_step();
      progress_.step = report.step;
      progress_.open_loss += report.loss;
      ++progress_.open_steps;
      observer_.on_step(report.step, report.loss);
    }
  }

  bool is_point(std::int64_t step) const {
    return step == run_.config.steps || is_due(interval_, step) || is_due(run_.config.evaluation_interval, step);
  }

  void add_point(std::int64_t step) {
    CurvePoint point{.step = step, .loss = progress_.open_loss / static_cast<double>(progress_.open_steps)};
    if (is_due(run_.config.evaluation_interval, step)) point.heldout_loss = score().loss();
    progress_.curve.push_back(point);
    progress_.open_loss = 0;
    progress_.open_steps = 0;
  }

  HeldoutScore score() {
    const bool bf16 = run_.config.dtype == "bf16";
    return run_.heldout.score(trainer_.model(), {.compute_dtype = bf16 ? std::optional(at::kBFloat16) : std::nullopt});
  }

  const CellRun& run_;
  CellObserver& observer_;
  training::Trainer trainer_;
  std::int64_t interval_;  // of points
  std::int64_t num_parameters_ = 0;
  CellProgress progress_;
};

}  // namespace

double CellResult::final_loss() const {
  const std::vector<CurvePoint>& curve = progress.curve;
  if (curve.empty()) return std::numeric_limits<double>::quiet_NaN();
  const std::size_t count = std::max<std::size_t>(1, curve.size() / 10);
  double sum = 0;
  for (std::size_t i = curve.size() - std::min(count, curve.size()); i < curve.size(); ++i) sum += curve[i].loss;
  return sum / static_cast<double>(count);
}

CellResult train_cell(const CellRun& run, CellObserver& observer, const StopFlag& stop) {
  CellResult result = RunningCell(run, observer).run(stop);
  std::error_code ignored;
  fs::remove_all(run.directory, ignored);
  return result;
}

}  // namespace comba::ablation
