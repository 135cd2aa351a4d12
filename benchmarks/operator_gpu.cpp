#include "operator_gpu.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/environment.h"
#include "comba/error.h"
#include "gpu_calls.h"
#include "gpu_timer.h"
#include "runtime/cuda_check.h"

namespace comba::benchmarks {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kCopiedBytes = 4.0 * (std::int64_t{1} << 30);
constexpr std::int64_t kProductSize = 8192;

Json context(const GpuTimer& gpu) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, gpu.device.index()), "cudaGetDeviceProperties");
  const std::string forced = forced_implementation();
  return {{"device", properties.name},
          {"l2_bytes", properties.l2CacheSize},
          {"program", "comba " COMBA_VERSION " (LibTorch " TORCH_VERSION ")"},
          {"implementation", forced.empty() ? "the library's choice" : forced}};
}

Json ceilings(const GpuTimer& gpu, int repetitions) {
  const std::vector<double> copy =
      gpu.time(kCopiedBytes, repetitions, [&] { return make_copy(kCopiedBytes, gpu.device); });
  const std::vector<double> product =
      gpu.time(6.0 * kProductSize * kProductSize, repetitions, [&] { return make_product(kProductSize, gpu.device); });
  const double flop = 2.0 * kProductSize * kProductSize * kProductSize;
  return {{"copy_bytes_per_second", kCopiedBytes / quantile(copy, 0.5)},
          {"copy", summary(copy)},
          {"gemm_flop_per_second", flop / quantile(product, 0.5)},
          {"gemm", summary(product)}};
}

/// Seconds of the first call in this process, until the GPU is done, and of the second.
Json cold_start(const GpuCase& x, const GpuTimer& gpu) {
  using Clock = std::chrono::steady_clock;
  const GpuCall call = make_gpu_call(x, gpu.device);
  Json json = {{"name", x.name()}};
  for (const char* which : {"first_seconds", "second_seconds"}) {
    gpu.wait();
    const Clock::time_point start = Clock::now();
    call();
    gpu.wait();
    json[which] = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return json;
}

void add_times(const GpuCase& x, const GpuTimer& gpu, const Json& best, int repetitions, Json& row) {
  const std::vector<double> samples =
      gpu.time(x.footprint(), repetitions, [&] { return make_gpu_call(x, gpu.device); });
  const double seconds = quantile(samples, 0.5);
  row.update(summary(samples));
  row["bytes"] = x.bytes();
  row["bytes_per_second"] = x.bytes() / seconds;
  row["of_copy"] = x.bytes() / seconds / best["copy_bytes_per_second"].get<double>();
  if (x.operation == Operation::decode_step) {
    const double copy =
        quantile(gpu.time(x.bytes(), repetitions, [&] { return make_copy(x.bytes(), gpu.device); }), 0.5);
    row["copy_us"] = copy * 1e6;
    row["of_copy_of_same_bytes"] = copy / seconds;
  } else {
    row["flop"] = x.flop();
    row["flop_per_second"] = x.flop() / seconds;
    row["of_gemm"] = x.flop() / seconds / best["gemm_flop_per_second"].get<double>();
  }
}

Json measured(const GpuCase& x, const GpuTimer& gpu, const Json& best, int repetitions) {
  Json row = {{"name", x.name()}, {"operator", x.operator_name()}, {"rule", x.rule_name()}};
  try {
    add_times(x, gpu, best, repetitions, row);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    row["refusal"] = error.what();
  }
  return row;
}

void print(const Json& row) {
  const auto number = [&](const char* name) { return row[name].get<double>(); };
  const auto name = row["name"].get<std::string>();
  if (row.contains("refusal")) return fmt::print("{:<44} not timed: {}\n", name, row["refusal"].get<std::string>());
  fmt::print("{:<44} {:>9.1f} us {:>7.0f} GB/s {:>4.0f}% of a copy", name, number("us"),
             number("bytes_per_second") / 1e9, number("of_copy") * 100);
  if (row.contains("flop")) {
    fmt::print(" {:>6.1f} TFLOP/s {:>4.0f}% of a product\n", number("flop_per_second") / 1e12, number("of_gemm") * 100);
  } else {
    fmt::print(", {:.0f}% of one of the same bytes\n", number("of_copy_of_same_bytes") * 100);
  }
  std::fflush(stdout);
}

}  // namespace

std::string bench_operator_on_gpu(const std::string& filter, int repetitions) {
  const std::vector<GpuCase> cases = gpu_cases_matching(filter);
  load_torch_for_gpus();
  at::manual_seed(1);
  const GpuTimer gpu;
  Json json = {{"context", context(gpu)}};
  const auto cold = std::ranges::find(cases, Operation::forward, &GpuCase::operation);
  const Json start = cold == cases.end() ? Json() : cold_start(*cold, gpu);
  json["ceilings"] = ceilings(gpu, repetitions);
  const Json best = json["ceilings"];
  fmt::print("{}: a copy moves {:.2f} TB/s, a bf16 product of {} does {:.0f} TFLOP/s\n",
             json["context"]["device"].get<std::string>(), best["copy_bytes_per_second"].get<double>() / 1e12,
             kProductSize, best["gemm_flop_per_second"].get<double>() / 1e12);
  json["rows"] = Json::array();
  for (const GpuCase& x : cases) {
    json["rows"].push_back(measured(x, gpu, best, repetitions));
    print(json["rows"].back());
  }
  json["cold_starts"] = Json::array();
  if (!start.is_null()) {
    json["cold_starts"].push_back(start);
    fmt::print("first call of this process, {}: {:.1f} ms\n", start["name"].get<std::string>(),
               start["first_seconds"].get<double>() * 1e3);
  }
  require(std::ranges::any_of(json["rows"], [](const Json& row) { return row.contains("us"); }), ErrorCode::unsupported,
          "[bench] nothing could be timed");
  return json.dump(1) + '\n';
}

}  // namespace comba::benchmarks
