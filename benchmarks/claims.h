#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// The paper's claim on speed: Comba beside Gated DeltaNet and softmax attention, forward and backward.
namespace comba::benchmarks {

struct ClaimsBench {
  std::string device = "cuda";
  std::vector<std::int64_t> lengths = {1024, 2048, 4096, 8192, 16384};
  std::vector<std::int64_t> head_dims = {128, 256};  ///< K = V, each with width / K heads
  std::int64_t batch_size = 8;
  std::int64_t width = 2048;  ///< heads times their dim, but 1024 at 256, as in the paper's models
  int repetitions = 12;
};

/// One call: "comba", "gated_delta" or "attention", with K = V = D.
struct ClaimsCase {
  std::string contestant;
  bool backward = false;
  std::int64_t B = 0, T = 0, H = 0, D = 0;
};

std::vector<ClaimsCase> claims_cases(const ClaimsBench& bench);

/// Times the cases, prints a line for each length, and returns {"kind": "claims", "context": {device, program, commit,
/// ...}, "rows": [{contestant, pass, B, T, H, D, us, p10_us, p90_us, method}]}; a case that nothing implements has a
/// `refusal` in place of its times. A GPU computes in bf16, CUDA graphs over rotated buffers; the CPU in fp32. Throws
/// Error where there is no GPU, or in a build without CUDA.
std::string bench_claims(const ClaimsBench& bench);

/// What a device does: its part of "context", and the times of a case, {us, ...}.
struct ClaimsDevice {
  nlohmann::ordered_json context;
  std::function<nlohmann::ordered_json(const ClaimsCase& x)> time;
};
ClaimsDevice claims_on_cpu(const ClaimsBench& bench);
ClaimsDevice claims_on_gpu(const ClaimsBench& bench);

}  // namespace comba::benchmarks
