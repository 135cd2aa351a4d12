#pragma once

#include <string>

/// The operator on a GPU, beside a copy and a matrix product there.
namespace comba::benchmarks {

/// Times the cases whose names match, prints a line each, and returns the results as JSON: what benchmarks/peers.py
/// writes, without errors and peers: {context, ceilings, rows: [{name, operator, rule, us, p10_us, p90_us, method,
/// samples_us, bytes, bytes_per_second, of_copy, flop, flop_per_second, of_gemm, copy_us, of_copy_of_same_bytes}],
/// cold_starts: [{name, first_seconds, second_seconds}]}. A case that nothing implements has a `refusal` in place of
/// its times. Throws Error where there is no GPU, in a build without CUDA, or when nothing can be timed.
std::string bench_operator_on_gpu(const std::string& filter, int repetitions);

}  // namespace comba::benchmarks
