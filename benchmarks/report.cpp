#include "report.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "operator_cpu.h"

namespace comba::benchmarks {
namespace {

const Measurement* find(const std::vector<Measurement>& measurements, const std::string& name) {
  const auto found = std::ranges::find(measurements, name, [](const Measurement& m) { return m.row.name; });
  return found == measurements.end() ? nullptr : &*found;
}

/// Rate over the rate of the row's ceiling, when that was measured too.
std::optional<double> share_of_ceiling(const std::vector<Measurement>& measurements, const Measurement& measurement) {
  const Measurement* ceiling = find(measurements, measurement.row.ceiling);
  if (ceiling == nullptr) return std::nullopt;
  return measurement.rate() / ceiling->rate();
}

}  // namespace

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::string to_table(const std::vector<Measurement>& measurements) {
  std::size_t width = 0;
  for (const Measurement& m : measurements) width = std::max(width, m.row.name.size());
  std::string table;
  for (const Measurement& m : measurements) {
    table += fmt::format("{:<{}} {:>10.3f} ms {:>7.1f} {}", m.row.name, width, m.median_seconds() * 1e3, m.rate() / 1e9,
                         m.row.unit == Work::flop ? "GFLOP/s" : "GB/s   ");
    if (const auto share = share_of_ceiling(measurements, m)) {
      table += fmt::format(" {:>4.0f}% of {}", *share * 100, m.row.ceiling);
    }
    table += '\n';
  }
  return table;
}

std::string to_json(const std::vector<Measurement>& measurements) {
  nlohmann::ordered_json json;
  json["context"] = {
      {"program", "comba " COMBA_VERSION " (" COMBA_BUILD_TYPE ", g++ " __VERSION__ ", LibTorch " TORCH_VERSION ")"},
      {"processor", processor()},
      {"threads", at::get_num_threads()},
      {"implementation", operator_implementation()},
  };
  for (const Measurement& m : measurements) {
    nlohmann::ordered_json row;
    row["name"] = m.row.name;
    row["unit"] = m.row.unit == Work::flop ? "FLOP" : "bytes";
    row["work"] = m.row.work;
    row["seconds"] = m.seconds;
    row["median_seconds"] = m.median_seconds();
    row["rate"] = m.rate();
    if (const auto share = share_of_ceiling(measurements, m)) {
      row["ceiling"] = m.row.ceiling;
      row["of_ceiling"] = *share;
    }
    json["rows"].push_back(row);
  }
  return json.dump(2) + '\n';
}

}  // namespace comba::benchmarks
