#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

/// Generation on a GPU, by a model of random weights.
namespace comba::benchmarks {

struct DecodeBench {
  std::filesystem::path model;  ///< config.json
  std::string device = "cuda";
  std::vector<std::int64_t> batch_sizes = {1, 128};
  std::string state_dtype = "f32";
  std::int64_t prompt_tokens = 0;  ///< 0: no prompt is read
  std::int64_t chunk_length = 8192;
  double temperature = 1;
  int steps = 32;  ///< of each sample
};

/// Times what is asked for, prints a line each, and returns it as JSON: {context, ceilings: {copy_bytes_per_second},
/// decode: [{batch_size, state_dtype, ms, p10_ms, p90_ms, tokens_per_second, bytes, floor_ms, of_floor}],
/// prefill: {tokens, chunk, ms, products_ms, of_products}}. `floor_ms` is how long a copy takes to move the bytes.
/// Throws Error where there is no GPU, in a build without CUDA, or for a model that cannot be stepped on one.
std::string bench_decode(const DecodeBench& bench);

}  // namespace comba::benchmarks
