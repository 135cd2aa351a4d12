#include "claims.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>

#include "base/environment.h"
#include "base/message.h"

namespace comba::benchmarks {
namespace {

using Json = nlohmann::ordered_json;

Json row_of(const ClaimsCase& x) {
  return {{"contestant", x.contestant},
          {"pass", x.backward ? "backward" : "forward"},
          {"B", x.B},
          {"T", x.T},
          {"H", x.H},
          {"D", x.D}};
}

std::string time_text(const Json& row) {
  return row.contains("us") ? fmt::format("{:.3f} ms", row["us"].get<double>() / 1e3) : std::string("-");
}

/// "forward 8x1024 16x128: comba 0.1 ms, gated_delta 0.1 ms (1.00 of comba), ...".
void print(const std::vector<Json>& rows) {
  const Json& first = rows.front();
  std::string text;
  for (const Json& row : rows) {
    const bool both = row.contains("us") && first.contains("us");
    const std::string ratio = &row == &first || !both
                                  ? ""
                                  : fmt::format(" ({:.2f} of it)", row["us"].get<double>() / first["us"].get<double>());
    text +=
        fmt::format("{}{} {}{}", text.empty() ? "" : ", ", row["contestant"].get<std::string>(), time_text(row), ratio);
  }
  fmt::print("{:<8} {}x{} {}x{}: {}\n", first["pass"].get<std::string>(), first["B"].get<int>(), first["T"].get<int>(),
             first["H"].get<int>(), first["D"].get<int>(), text);
  std::fflush(stdout);
}

Json measured(const ClaimsCase& x, const ClaimsDevice& device) {
  Json row = row_of(x);
  try {
    row.update(device.time(x));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    row["refusal"] = error.what();
  }
  return row;
}

}  // namespace

std::vector<ClaimsCase> claims_cases(const ClaimsBench& bench) {
  std::vector<ClaimsCase> cases;
  for (const std::int64_t D : bench.head_dims) {
    const std::int64_t width = D == 256 ? bench.width / 2 : bench.width;
    require(width >= D, ErrorCode::invalid_argument, "[bench] --width must hold a head of ", D, "; got ", bench.width);
    for (const std::int64_t T : bench.lengths) {
      for (const bool backward : {false, true}) {
        for (const char* contestant : {"comba", "gated_delta", "attention"}) {
          cases.push_back({contestant, backward, bench.batch_size, T, width / D, D});
        }
      }
    }
  }
  return cases;
}

std::string bench_claims(const ClaimsBench& bench) {
  const std::vector<ClaimsCase> cases = claims_cases(bench);
  const ClaimsDevice device = bench.device == "cpu" ? claims_on_cpu(bench) : claims_on_gpu(bench);
  const std::string forced = forced_implementation();
  Json json = {{"kind", "claims"}, {"context", device.context}, {"rows", Json::array()}};
  json["context"]["program"] = "comba " COMBA_VERSION;
  json["context"]["commit"] = COMBA_COMMIT;
  json["context"]["implementation"] = forced.empty() ? "the library's choice" : forced;
  json["context"]["repetitions"] = bench.repetitions;
  std::vector<Json> beside;  // of one shape and pass
  for (const ClaimsCase& x : cases) {
    beside.push_back(measured(x, device));
    json["rows"].push_back(beside.back());
    if (beside.size() < 3) continue;
    print(beside);
    beside.clear();
  }
  return json.dump(1) + '\n';
}

}  // namespace comba::benchmarks
