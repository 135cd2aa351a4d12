#include "tasks/settings.h"

#include <charconv>

#include "base/message.h"

namespace comba::tasks {
namespace {

constexpr std::int64_t kZoologyVocab = 8192;

DataSpec figure2_data(std::int64_t length, std::int64_t pairs, std::int64_t batch_size) {
  return {.name = concat(length, 'x', pairs),
          .task = "mqar",
          .vocab = kZoologyVocab,
          .random_non_queries = false,
          .train = {{length, pairs, 100'000}},
          .test = {{length, pairs, 3'000}},
          .batch_size = batch_size,
          .test_batch_size = batch_size};
}

Sweep figure2() {
  return {.setting = "figure2",
          .data_sets = {figure2_data(64, 4, 512), figure2_data(128, 8, 512), figure2_data(256, 16, 256),
                        figure2_data(512, 64, 128)},
          .mixers = {"comba", "gated_deltanet", "mamba2", "linear_attn", "softmax"},
          .hidden_sizes = {64, 128, 256, 512},
          .learning_rates = {1e-4, 4.6e-4, 2.2e-3, 1e-2},
          .training = {.epochs = 64}};
}

Sweep mixture() {
  const DataSpec data{
      .name = "mixture",
      .task = "mqar",
      .vocab = kZoologyVocab,
      .random_non_queries = true,
      .train = {{64, 4, 100'000}, {128, 8, 20'000}, {256, 16, 20'000}, {256, 32, 20'000}, {256, 64, 20'000}},
      .test = {{64, 4, 1'000},
               {64, 8, 1'000},
               {64, 16, 1'000},
               {128, 32, 1'000},
               {256, 64, 1'000},
               {512, 128, 1'000},
               {1024, 256, 1'000}},
      .batch_size = 256,
      .test_batch_size = 32};
  return {.setting = "mixture",
          .data_sets = {data},
          .mixers = {"comba", "gated_deltanet", "mamba2", "linear_attn", "softmax"},
          .hidden_sizes = {64, 128},
          .learning_rates = {1e-3, 3.2e-3, 1e-2, 3.2e-2},
          .training = {.epochs = 32}};
}

/// Small enough for minutes on a CPU, and of one narrow head, so that twelve pairs are many for its state.
Sweep small() {
  const DataSpec data{.name = "small",
                      .task = "mqar",
                      .vocab = 512,
                      .random_non_queries = false,
                      .train = {{32, 4, 4'000}, {64, 8, 6'000}, {64, 12, 6'000}},
                      .test = {{64, 4, 500}, {64, 8, 500}, {64, 12, 500}},
                      .batch_size = 64,
                      .test_batch_size = 100};
  return {.setting = "small",
          .data_sets = {data},
          .mixers = {"comba", "gated_deltanet", "linear_attn"},
          .hidden_sizes = {32},
          .learning_rates = {1e-2},
          .num_heads = 1,
          .training = {.epochs = 16}};
}

std::int64_t vocab_of(const std::string& task) { return task == "parity" ? 2 : task == "s3" ? 6 : 5; }

}  // namespace

const std::vector<std::string>& mqar_settings() {
  static const std::vector<std::string> settings = {"small", "mixture", "figure2"};
  return settings;
}

Sweep mqar_sweep(const std::string& setting) {
  if (setting == "small") return small();
  if (setting == "mixture") return mixture();
  require(setting == "figure2", ErrorCode::invalid_argument,
          "[mqar] the setting must be small, mixture or figure2; got '", setting, "'");
  return figure2();
}

Sweep task_sweep(const std::string& task) {
  DataSpec data{.name = task,
                .task = task,
                .vocab = vocab_of(task),
                .train = {{40, 0, 20'000}},
                .test = {{40, 0, 500}, {80, 0, 500}, {160, 0, 500}, {320, 0, 500}},
                .batch_size = 128,
                .test_batch_size = 128};
  if (task == "selective-copy") {
    data.vocab = 16;
    data.train = {{64, 8, 20'000}};
    data.test = {{64, 8, 500}, {128, 8, 500}, {256, 8, 500}};
  }
  validate(data);
  return {.setting = task,
          .data_sets = {data},
          .mixers = {"comba", "comba:comba_rule=iplr", "gated_deltanet", "gated_deltanet:allow_neg_eigval=true"},
          .hidden_sizes = {64},
          .learning_rates = {3e-3},
          .training = {.epochs = 16}};
}

SegmentSpec parse_segment(const std::string& task, const std::string& text) {
  const bool has_items = task == "mqar" || task == "selective-copy";
  std::vector<std::int64_t> numbers;
  const char *at = text.data(), *end = at + text.size();
  bool fits = true;
  while (fits && numbers.size() < (has_items ? 3u : 2u)) {
    if (!numbers.empty()) fits = at < end && *at++ == 'x';
    std::int64_t number = 0;
    const auto [behind, failure] = std::from_chars(at, end, number);
    fits = fits && failure == std::errc();
    numbers.push_back(number);
    at = behind;
  }
  require(fits && at == end, ErrorCode::invalid_argument, "[", task, "] a segment must be ",
          has_items ? "LENGTHxITEMSxEXAMPLES, like 64x4x1000" : "LENGTHxEXAMPLES, like 64x1000", "; got '", text, "'");
  return {.length = numbers[0], .items = has_items ? numbers[1] : 0, .examples = numbers.back()};
}

}  // namespace comba::tasks
