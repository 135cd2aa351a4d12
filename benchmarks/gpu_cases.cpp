#include "gpu_cases.h"

#include <fmt/format.h>

#include <regex>

#include "base/message.h"

namespace comba::benchmarks {
namespace {

constexpr double kChunk = 64;

/// Log-normal shares of 32768 tokens, as benchmarks/gpu/cases.py draws them.
const std::vector<std::int64_t> kUnevenLengths = {925,  1746, 1455, 283,  325, 625,  575,  1645, 3140, 661,  221, 356,
                                                  1931, 1442, 510,  2268, 612, 1178, 7086, 470,  1867, 2296, 741, 410};

std::vector<GpuCase> all_cases() {
  std::vector<GpuCase> cases;
  for (const Operation operation : {Operation::forward, Operation::backward}) {
    const auto add = [&](std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t HV, std::int64_t K,
                         std::int64_t V, const std::vector<std::int64_t>& lengths = {}) {
      for (const Rule rule : {Rule::comba, Rule::gated_delta})
        cases.push_back({operation, rule, B, T, H, HV, K, V, lengths});
    };
    add(1, 2048, 16, 16, 128, 128);
    add(1, 8192, 16, 16, 128, 128);
    add(8, 2048, 16, 16, 128, 128);
    add(1, 32768, 16, 16, 128, 128);
    add(4, 8192, 32, 32, 128, 128);
    add(1, 8192, 16, 64, 128, 128);
    add(8, 2048, 4, 4, 256, 256);
    add(16, 2048, 4, 4, 256, 256);
    add(1, 32768, 16, 16, 128, 128, kUnevenLengths);
    add(4, 2048, 30, 30, 96, 192);
    add(8, 2048, 1, 32, 128, 64);
  }
  for (const std::int64_t B : {32, 128}) {
    for (const auto& [T, state] : {std::pair{1, DType::f32}, {1, DType::bf16}, {4, DType::f32}}) {
      cases.push_back({Operation::decode_step, Rule::comba, B, T, 16, 16, 128, 128, {}, state});
    }
  }
  return cases;
}

}  // namespace

std::string GpuCase::operator_name() const {
  if (operation == Operation::decode_step) return "decode_step";
  return operation == Operation::forward ? "forward" : "backward";
}

std::string GpuCase::rule_name() const { return rule == Rule::comba ? "comba" : "gated_delta"; }

std::string GpuCase::name() const {
  const std::string heads = fmt::format("{}/{} {}", H, HV, K) + (K == V ? "" : fmt::format("/{}", V));
  const std::string what = operator_name() + ' ' + rule_name() + ' ';
  if (operation == Operation::decode_step) {
    return what + fmt::format("B{} T{} {}, {} state", B, T, heads, comba::name_of(state));
  }
  const std::string tokens =
      lengths.empty() ? fmt::format("{}x{}", B, T) : fmt::format("{} sequences of {}", lengths.size(), T);
  return what + tokens + ' ' + heads;
}

double GpuCase::bytes() const {
  if (operation == Operation::decode_step) return 2 * footprint();
  const auto keys = static_cast<double>(2 * H * K), values = static_cast<double>(HV * V);
  const double elements = operation == Operation::forward ? keys + 2 * values : 2 * keys + 3 * values;
  return 2 * static_cast<double>(B * T) * elements;
}

double GpuCase::footprint() const {
  return operation == Operation::decode_step ? static_cast<double>(B * HV * K * V * size_of(state)) : bytes();
}

double GpuCase::flop() const {
  const auto token_heads = static_cast<double>(B * T * HV), state = static_cast<double>(K * V),
             row = kChunk * static_cast<double>(K + V);
  if (operation == Operation::forward) return token_heads * (6 * state + 4 * row);
  return operation == Operation::backward ? token_heads * (14 * state + 10 * row) : 0;
}

std::vector<GpuCase> gpu_cases_matching(const std::string& filter) {
  const std::regex pattern(filter);
  std::vector<GpuCase> cases = all_cases();
  std::erase_if(cases, [&](const GpuCase& x) { return !std::regex_search(x.name(), pattern); });
  require(!cases.empty(), ErrorCode::invalid_argument, "--filter '", filter, "' matches no row");
  return cases;
}

}  // namespace comba::benchmarks
