#pragma once

#include <cstdint>

/// Sizes and memory of the chunked CPU code, the same for every instruction set.
namespace comba::delta_rule::cpu {

constexpr std::int64_t kChunk = 64;  ///< C, tokens of a chunk
constexpr std::int64_t kBlock = 16;  ///< side of the triangular blocks a chunk is solved by
constexpr std::int64_t kAlign = 16;  ///< floats of a cache line

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// Row length in floats of a matrix of n columns: whole cache lines, so that vectors need no tail, and an odd number of
/// them, so that the rows of a tall matrix do not all fall into the same few sets of the L1 cache.
constexpr std::int64_t row_length(std::int64_t n) {
  const std::int64_t lines = (n + kAlign - 1) / kAlign;
  return (lines % 2 == 0 ? lines + 1 : lines) * kAlign;
}

constexpr std::int64_t num_chunks(std::int64_t num_tokens) { return (num_tokens + kChunk - 1) / kChunk; }

/// A dense matrix of floats in the workspace; `stride` floats from row to row.
struct Matrix {
  float* data = nullptr;
  std::int64_t stride = 0;

  float* row(std::int64_t i) const { return data + i * stride; }
};

/// Hands out pieces of one block of memory, each aligned to a cache line. Without memory it only counts.
class Arena {
 public:
  explicit Arena(void* memory = nullptr) : memory_(static_cast<float*>(memory)) {}

  float* floats(std::int64_t count) {
    float* piece = memory_ ? memory_ + used_ : nullptr;
    used_ += round_up(count, kAlign);
    return piece;
  }

  /// A matrix of `rows` rows; its rows are padded to row_length(columns).
  Matrix matrix(std::int64_t rows, std::int64_t columns) {
    const std::int64_t stride = row_length(columns);
    return {floats(rows * stride), stride};
  }

  std::int64_t bytes() const { return used_ * static_cast<std::int64_t>(sizeof(float)); }

 private:
  float* memory_;
  std::int64_t used_ = 0;
};

}  // namespace comba::delta_rule::cpu
