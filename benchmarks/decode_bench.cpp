#include "decode_bench.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "generation/gpu/step_decoder.h"
#include "gpu_calls.h"
#include "libtorch/call_scope.h"
#include "models/read_tokens.h"
#include "training/profiler.h"

namespace comba::benchmarks {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int kSamples = 9;
constexpr double kCopiedBytes = 4.0 * (std::int64_t{1} << 30);

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Bench {
 public:
  explicit Bench(const DecodeBench& options)
      : options_(options),
        device_(c10::kCUDA, 0),
        guard_(c10::impl::VirtualGuardImpl(c10::kCUDA).getStreamFromGlobalPool(device_)),
        model_(models::load_model_config(options.model), at::TensorOptions(device_).dtype(at::kBFloat16)) {
    const at::NoGradGuard no_grad;
    for (const auto& parameter : model_.named_parameters()) {
      parameter.key().ends_with("norm.weight") ? parameter.value().fill_(1) : parameter.value().normal_(0, 0.02);
    }
    stream().synchronize();
  }

  double copy_rate() const {
    const GpuCall copy = make_copy(kCopiedBytes, device_);
    return kCopiedBytes / quantile(time_on_gpu({copy}, current_cuda_stream(device_), kSamples), 0.5);
  }

  Json decode(std::int64_t batch_size, double copy_rate) {
    const auto dtype = options_.state_dtype == "bf16" ? at::kBFloat16 : at::kFloat;
    generation::StepDecoder decoder(model_, batch_size, model_.config().vocab_size, dtype);
    const models::ModelState start = model_.initial_state(1);
    for (std::int64_t i = 0; i < batch_size; ++i) {
      decoder.join(start, i, {.temperature = options_.temperature, .seed = static_cast<std::uint64_t>(i)}, 0, {});
    }
    const std::vector<double> seconds = time_steps(decoder);
    if (const char* trace = std::getenv("COMBA_TRACE"); trace != nullptr) {
      training::Profiler profiler(device_);
      for (int i = 0; i < 3; ++i) decoder.launch(), decoder.read();
      profiler.stop();
      profiler.write_trace(trace + std::string("/") + std::to_string(batch_size) + "-" + std::to_string(num_traces_++) +
                           ".json");
    }
    const double median = quantile(seconds, 0.5), bytes = bytes_of_step(decoder, batch_size);
    return {{"batch_size", batch_size},
            {"state_dtype", options_.state_dtype},
            {"ms", median * 1e3},
            {"p10_ms", quantile(seconds, 0.1) * 1e3},
            {"p90_ms", quantile(seconds, 0.9) * 1e3},
            {"tokens_per_second", static_cast<double>(batch_size) / median},
            {"bytes", bytes},
            {"floor_ms", bytes / copy_rate * 1e3},
            {"of_floor", bytes / copy_rate / median}};
  }

  Json prefill() {
    const at::NoGradGuard no_grad;
    const std::vector<std::int64_t> prompt(static_cast<std::size_t>(options_.prompt_tokens), 1);
    const std::int64_t chunk = std::min(options_.chunk_length, options_.prompt_tokens);
    const auto median_of = [&](const auto& run) {
      std::vector<double> seconds;
      run();
      for (int i = 0; i < 3; ++i) {
        stream().synchronize();
        const Clock::time_point start = Clock::now();
        run();
        stream().synchronize();
        seconds.push_back(seconds_since(start));
      }
      return quantile(seconds, 0.5);
    };
    const double reading = median_of([&] {
      models::ModelState state = model_.initial_state(1);
      models::read_tokens(model_, prompt, state, chunk);
    });
    const auto inputs = inputs_of_products(chunk);
    const double products = median_of([&] {
      for (std::int64_t first = 0; first < options_.prompt_tokens; first += chunk) {
        for (const auto& [x, weight] : inputs) at::linear(x, weight);
      }
    });
    return {{"tokens", options_.prompt_tokens},
            {"chunk", chunk},
            {"ms", reading * 1e3},
            {"products_ms", products * 1e3},
            {"of_products", products / reading}};
  }

 private:
  static c10::Stream stream() { return c10::impl::VirtualGuardImpl(c10::kCUDA).getStream({c10::kCUDA, 0}); }

  /// Of one step, for each sample.
  std::vector<double> time_steps(generation::StepDecoder& decoder) const {
    for (int i = 0; i < 4; ++i) decoder.launch(), decoder.read();
    decoder.launch();
    std::vector<double> seconds;
    for (int sample = 0; sample < kSamples; ++sample) {
      const Clock::time_point start = Clock::now();
      for (int i = 0; i < options_.steps; ++i) decoder.launch(), decoder.read();
      seconds.push_back(seconds_since(start) / options_.steps);
    }
    decoder.read();
    return seconds;
  }

  /// Each weight once, but one row of the embedding for each text; states and tails read and written.
  double bytes_of_step(const generation::StepDecoder& decoder, std::int64_t batch_size) const {
    const models::ModelConfig& config = model_.config();
    double bytes = 0;
    for (const auto& parameter : model_.named_parameters()) {
      const bool is_looked_up = parameter.key() == "model.embeddings.weight" && !config.tie_word_embeddings;
      if (!is_looked_up) bytes += static_cast<double>(parameter.value().nbytes());
    }
    bytes += 2.0 * static_cast<double>(batch_size * config.hidden_size);
    for (const at::Tensor& state : decoder.model().states) bytes += 2.0 * static_cast<double>(state.nbytes());
    for (const at::Tensor& tail : decoder.model().tails) bytes += 2.0 * static_cast<double>(tail.nbytes());
    return bytes;
  }

  /// What goes into the linear maps of all layers, and their weights.
  std::vector<std::pair<at::Tensor, at::Tensor>> inputs_of_products(std::int64_t tokens) const {
    std::vector<std::pair<at::Tensor, at::Tensor>> inputs;
    for (const auto& parameter : model_.named_parameters()) {
      const at::Tensor& weight = parameter.value();
      if (!parameter.key().ends_with("proj.weight")) continue;
      inputs.emplace_back(at::randn({tokens, weight.size(1)}, weight.options().requires_grad(false)), weight.detach());
    }
    return inputs;
  }

  int num_traces_ = 0;
  const DecodeBench& options_;
  c10::Device device_;
  c10::StreamGuard guard_;
  models::CausalLM model_;
};

void print(const Json& row) {
  fmt::print("batch {:>4}  {} states  {:>8.3f} ms a token  {:>9.0f} tokens/s  floor {:>7.3f} ms, {:>3.0f}%\n",
             row["batch_size"].get<std::int64_t>(), row["state_dtype"].get<std::string>(), row["ms"].get<double>(),
             row["tokens_per_second"].get<double>(), row["floor_ms"].get<double>(),
             row["of_floor"].get<double>() * 100);
  std::fflush(stdout);
}

}  // namespace

std::string bench_decode(const DecodeBench& options) {
  load_torch_for_gpus();
  at::manual_seed(1);
  Bench bench(options);
  const double copy_rate = bench.copy_rate();
  fmt::print("a copy moves {:.2f} TB/s\n", copy_rate / 1e12);
  Json json = {{"context",
                {{"model", options.model.string()},
                 {"program", "comba " COMBA_VERSION},
                 {"temperature", options.temperature},
                 {"steps", options.steps}}},
               {"ceilings", {{"copy_bytes_per_second", copy_rate}}},
               {"decode", Json::array()}};
  for (const std::int64_t batch_size : options.batch_sizes) {
    std::istringstream variants(std::getenv("COMBA_STEPS") ? std::getenv("COMBA_STEPS") : "split=0");
    for (std::string variant; variants >> variant;) {
      setenv("COMBA_STEP", variant.c_str(), 1);
      json["decode"].push_back(bench.decode(batch_size, copy_rate));
      json["decode"].back()["variant"] = variant;
      fmt::print("{:<52} ", variant);
      print(json["decode"].back());
    }
  }
  if (options.prompt_tokens > 0) {
    const Json prefill = json["prefill"] = bench.prefill();
    fmt::print("prompt of {} tokens, {} at a time: {:.1f} ms; its matrix products alone {:.1f} ms, {:.0f}%\n",
               options.prompt_tokens, prefill["chunk"].get<std::int64_t>(), prefill["ms"].get<double>(),
               prefill["products_ms"].get<double>(), prefill["of_products"].get<double>() * 100);
  }
  return json.dump(1) + '\n';
}

}  // namespace comba::benchmarks
