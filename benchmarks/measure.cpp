#include "measure.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace comba::benchmarks {
namespace {

/// Collects the seconds of each repetition.
class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      seconds_[run.run_name.function_name].push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
    }
  }

  std::vector<double> seconds(const std::string& name) const { return seconds_.at(name); }

 private:
  std::map<std::string, std::vector<double>> seconds_;
};

}  // namespace

double Measurement::median_seconds() const {
  std::vector<double> sorted = seconds;
  std::ranges::sort(sorted);
  const std::size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

std::vector<Measurement> measure(const std::vector<Row>& rows, const MeasureOptions& options) {
  std::vector<std::string> flags = {"comba-bench", "--benchmark_enable_random_interleaving=true",
                                    fmt::format("--benchmark_repetitions={}", options.repetitions),
                                    fmt::format("--benchmark_min_time={}", options.min_seconds)};
  std::vector<char*> argv;
  for (std::string& flag : flags) argv.push_back(flag.data());
  int argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  for (const Row& row : rows) {
    benchmark::RegisterBenchmark(row.name.c_str(), [&row](benchmark::State& state) {
      const std::function<void()> call = row.make_call();
      call();  // the first one touches fresh memory
      for ([[maybe_unused]] auto _ : state) call();
    })->UseRealTime();
  }
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector);
  benchmark::ClearRegisteredBenchmarks();
  benchmark::Shutdown();
  std::vector<Measurement> measurements;
  for (const Row& row : rows) measurements.push_back({row, collector.seconds(row.name)});
  return measurements;
}

}  // namespace comba::benchmarks
