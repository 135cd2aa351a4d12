#include "build_facts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "comba/delta_rule.h"
#include "distributed/process_group.h"

namespace comba::cli {
namespace {

constexpr std::string_view kCuda = COMBA_CUDA_FACTS;
constexpr const char* kLicense = "Apache-2.0";

/// What was compiled in, whether this machine can run it or not.
std::vector<std::string> implementations() {
  const View rows(nullptr, DType::f32, {1, 0, 1, 64}), gates(nullptr, DType::f32, {1, 0, 1});
  const DeltaRuleForward call{.inputs = {.q = rows, .k = rows, .v = rows, .beta = gates, .g = gates}, .o = rows};
  std::vector<std::string> names;
  for (const DeltaRuleImplementation& implementation : delta_rule_implementations(call)) {
    names.push_back(implementation.name);
  }
  return names;
}

}  // namespace

std::string version_text() {
  return fmt::format(
      "comba {} ({}, g++ {}, LibTorch {})\n"
      "commit           {}\n"
      "CUDA             {}\n"
      "processes        {}\n"
      "implementations  {}\n"
      "license          {}",
      COMBA_VERSION, COMBA_BUILD_TYPE, __VERSION__, TORCH_VERSION, COMBA_COMMIT, kCuda.empty() ? "none" : kCuda,
      distributed::has_gloo() ? "any number, by Gloo" : "one (no Gloo)", fmt::join(implementations(), ", "), kLicense);
}

std::string program_version() { return "comba " COMBA_VERSION; }
std::string program_commit() { return COMBA_COMMIT; }

std::string version_json() {
  nlohmann::ordered_json json;
  json["version"] = COMBA_VERSION;
  json["commit"] = COMBA_COMMIT;
  json["build_type"] = COMBA_BUILD_TYPE;
  json["compiler"] = "g++ " __VERSION__;
  json["libtorch"] = TORCH_VERSION;
  json["cuda"] = kCuda.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(kCuda);
  json["gloo"] = distributed::has_gloo();
  json["implementations"] = implementations();
  json["license"] = kLicense;
  return json.dump(2);
}

}  // namespace comba::cli
