#include "train_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/message.h"
#include "kernel_classes.h"
#include "libtorch/device.h"
#include "libtorch/gpu_rates.h"
#include "models/causal_lm.h"
#include "models/training_flops.h"
#include "training/learning_rate.h"
#include "training/profiler.h"
#include "training/train_step.h"

namespace comba::benchmarks {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

constexpr std::int64_t kProfiledSteps = 3;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// A step's micro-batches, of random tokens, and the steps they are trained on.
class Steps {
 public:
  Steps(const TrainBench& bench, const models::ModelConfig& model_config, c10::Device device)
      : config_(bench.config), model_(std::make_shared<models::CausalLM>(model_config)) {
    model_->to(device);
    draw_weights();
    step_ = std::make_unique<training::TrainStep>(model_, config_, distributed::single_process(),
                                                  training::StepOptions{.graphs = bench.graphs});
    const std::int64_t size = config_.micro_batch_size > 0 ? config_.micro_batch_size : config_.batch_size;
    for (std::int64_t first = 0; first < config_.batch_size; first += size) {
      const at::Tensor ids = at::randint(model_config.vocab_size, {size, config_.context_length},
                                         at::TensorOptions(device).dtype(at::kLong));
      micro_batches_.push_back({.batch = {ids, ids.roll(-1, 1)}, .num_labels = ids.numel()});
    }
  }

  /// `count` steps, the host one ahead; seconds from result to result.
  std::vector<double> run(std::int64_t count) {
    std::vector<double> seconds;
    Clock::time_point last = Clock::now();
    const auto take = [&](std::int64_t but) {
      while (step_->num_results() > but) {
        const training::StepResult result = step_->take_result();
        require(result.finite, ErrorCode::numerical, "[bench] loss and gradient must be finite; got loss ", result.loss,
                " and gradient norm ", result.gradient_norm);
        loss_ = result.loss;
        seconds.push_back(seconds_since(last));
        last = Clock::now();
      }
    };
    for (std::int64_t i = 0; i < count; ++i) {
      for (const auto& micro_batch : micro_batches_) step_->accumulate(micro_batch, 1.0 / micro_batches_.size());
      step_->update(training::learning_rate(config_, done_++));
      take(/*but=*/step_->device().is_cpu() ? 0 : 1);  // a GPU computes this step while the next one is started
    }
    take(/*but=*/0);
    return seconds;
  }

  const training::TrainStep& step() const { return *step_; }
  double loss() const { return loss_; }

 private:
  /// As initialize() does, but where the model is: its draws on the host take seconds.
  void draw_weights() {
    const at::NoGradGuard no_grad;
    for (auto& parameter : model_->named_parameters()) {
      at::Tensor& value = parameter.value();
      if (value.dim() >= 2) {
        value.normal_(0, model_->config().initializer_range);
      } else if (parameter.key().ends_with("A_log")) {
        value.uniform_(0, 2);
      } else if (parameter.key().ends_with("dt_bias")) {
        value.uniform_(-6, -2);
      } else {
        value.fill_(parameter.key().ends_with(".D") ? model_->config().correction_factor : 1);
      }
    }
  }

  training::TrainConfig config_;
  std::shared_ptr<models::CausalLM> model_;
  std::unique_ptr<training::TrainStep> step_;
  std::vector<training::MicroBatch> micro_batches_;
  std::int64_t done_ = 0;
  double loss_ = 0;
};

/// Kernels of the profiled steps by class, in the order of KernelClass.
ordered_json breakdown_of(const std::vector<training::KernelTime>& kernels, const TrainBench& bench,
                          const models::ModelConfig& model, const DeviceRates& rates) {
  const std::vector<double> floors = floor_seconds(model, bench.config, rates);
  ordered_json rows = ordered_json::array();
  for (std::size_t c = 0; c < kKernelClasses.size(); ++c) {
    double seconds = 0;
    std::int64_t runs = 0;
    ordered_json members = ordered_json::array();
    for (const training::KernelTime& kernel : kernels) {
      if (class_of(kernel.name) != c) continue;
      seconds += kernel.seconds / kProfiledSteps;
      runs += kernel.runs;
      members.push_back({{"name", kernel.name},
                         {"seconds", kernel.seconds / kProfiledSteps},
                         {"runs", static_cast<double>(kernel.runs) / kProfiledSteps}});
    }
    ordered_json row = {
        {"class", kKernelClasses[c]}, {"seconds", seconds}, {"runs", static_cast<double>(runs) / kProfiledSteps}};
    if (floors[c] > 0) row["floor_seconds"] = floors[c];
    row["kernels"] = std::move(members);
    rows.push_back(std::move(row));
  }
  return rows;
}

void print_breakdown(const ordered_json& rows) {
  fmt::print("{:<22} {:>9} {:>9} {:>8}\n", "class of kernels", "ms", "floor ms", "launches");
  for (const auto& row : rows) {
    const std::string floor =
        row.contains("floor_seconds") ? fmt::format("{:.2f}", row["floor_seconds"].get<double>() * 1e3) : "-";
    fmt::print("{:<22} {:>9.2f} {:>9} {:>8.0f}\n", row["class"].get<std::string>(), row["seconds"].get<double>() * 1e3,
               floor, row["runs"].get<double>());
  }
}

}  // namespace

std::string bench_training(const TrainBench& bench) {
  const Clock::time_point start = Clock::now();
  training::validate(bench.config);
  const c10::Device device = find_device(bench.device);
  require(!bench.breakdown || device.is_cuda(), ErrorCode::invalid_argument,
          "[bench] --breakdown needs --device cuda: it is of a GPU's kernels");
  use_device(device);
  const models::ModelConfig model = models::load_model_config(bench.model);
  Steps steps(bench, model, device);
  steps.run(1);
  const double first_step = seconds_since(start);
  steps.run(bench.warmup - 1);
  std::vector<double> seconds = steps.run(bench.steps);
  const std::vector<double> samples = seconds;
  std::ranges::sort(seconds);
  const double median = seconds[seconds.size() / 2];

  const DeviceRates rates = device_rates(device);
  const auto tokens = static_cast<double>(bench.config.batch_size * bench.config.context_length);
  const double flop = models::training_flops_per_token(model, bench.config.context_length).total();
  ordered_json json;
  json["context"] = {{"model", bench.model.filename().string()},
                     {"device", rates.name},
                     {"batch_size", bench.config.batch_size},
                     {"micro_batch_size", bench.config.micro_batch_size},
                     {"context_length", bench.config.context_length},
                     {"dtype", bench.config.dtype},
                     {"recompute_blocks", bench.config.recompute_blocks}};
  json["tokens_per_second"] = tokens / median;
  json["median_step_seconds"] = median;
  json["step_seconds"] = samples;
  json["first_step_seconds"] = first_step;
  json["flop_per_token"] = flop;
  json["flop_per_second"] = flop * tokens / median;
  if (rates.flop_per_second > 0) json["of_peak"] = flop * tokens / median / rates.flop_per_second;
  json["peak_memory_bytes"] = peak_memory_bytes(device);
  json["loss"] = steps.loss();
  json["graphs"] = steps.step().has_graphs();
  if (!steps.step().graph_failure().empty()) json["graph_failure"] = steps.step().graph_failure();
  fmt::print("{:.0f} tokens/s  {:.2f} ms a step (p10 {:.2f}, p90 {:.2f})  {:.1f} TFLOP/s{}  peak memory {:.2f} GiB\n",
             tokens / median, median * 1e3, seconds[seconds.size() / 10] * 1e3, seconds[seconds.size() * 9 / 10] * 1e3,
             flop * tokens / median / 1e12,
             rates.flop_per_second > 0 ? fmt::format(" ({:.1f}% of {:.0f})", json["of_peak"].get<double>() * 100,
                                                     rates.flop_per_second / 1e12)
                                       : "",
             static_cast<double>(peak_memory_bytes(device)) / (1 << 30));
  fmt::print("first step after {:.2f} s; last loss {:.4f}; CUDA graphs {}\n", first_step, steps.loss(),
             steps.step().has_graphs() ? "on" : "off " + steps.step().graph_failure().substr(0, 300));

  if (bench.breakdown || !bench.trace.empty()) {
    training::Profiler profiler(device);
    steps.run(kProfiledSteps);
    profiler.stop();
    if (bench.breakdown) {
      json["breakdown"] = breakdown_of(profiler.kernels(), bench, model, rates);
      print_breakdown(json["breakdown"]);
    }
    if (!bench.trace.empty()) profiler.write_trace(bench.trace);
  }
  return json.dump(2) + '\n';
}

}  // namespace comba::benchmarks
