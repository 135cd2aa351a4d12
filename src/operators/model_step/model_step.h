#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/half.h"
#include "comba/delta_rule.h"

/// One token of many texts through a whole recurrent language model on a GPU, the next token drawn there: five kernels
/// a layer, all of a step one CUDA graph. README.md beside this file derives them. Without a framework: whoever calls
/// owns all memory, and everything here is on the GPU unless said.
///
/// Dims as in comba/delta_rule.h, and: R rows (texts of one step), S slots (texts that have a state), D model width,
/// F inner width of the MLP, W width of the convolutions, C = 2 H K + HV V their channels.
/// Slots do not move: a row of a step names its slot. What a text gets does not depend on the rows beside it, to the
/// bit, nor on how many there are.
namespace comba::model_step {

/// Rows and columns of matrices are padded to these, columns of activations to the same; what pads is zero.
inline constexpr std::int64_t kTileRows = 16, kTileColumns = 32;
constexpr std::int64_t padded(std::int64_t size, std::int64_t to) { return (size + to - 1) / to * to; }

/// Activations that a matrix is multiplied with: [R / 8][width / 32][8][32], so that what a warp reads of 8 rows is one
/// piece of memory. Here the place of (row, channel); `stride` is the padded width.
constexpr unsigned place_in_rows(int row, int channel, int stride) {
  const unsigned r = static_cast<unsigned>(row), c = static_cast<unsigned>(channel), s = static_cast<unsigned>(stride);
  return (r / 8 * s + c / 32 * 32) * 8 + r % 8 * 32 + c % 32;
}
/// Of row 8 i + j.
constexpr unsigned place_of_row(int i, int j, int stride) {
  return static_cast<unsigned>(i) * 8 * static_cast<unsigned>(stride) + static_cast<unsigned>(j) * 32;
}
inline constexpr int kBlockStep = 8 * 32;  ///< from a channel to that 32 further

/// Columns of a head's state that are one piece of memory.
inline constexpr std::int64_t kStateColumns = 16;

/// A matrix in the order in which the lanes of a warp read it:
/// [rows / 16][columns / 32][2][8][4][8] is element (16 i + 8 k + l, 32 j + 8 m + n) at [i, j, k, l, m, n].
struct PackedMatrix {
  const bf16* data = nullptr;
  std::int64_t rows = 0;     ///< before padding
  std::int64_t columns = 0;  ///< before padding
};

enum class Gate : std::uint8_t { none, sigmoid, silu };

struct Dims {
  std::int64_t D = 0, H = 0, HV = 0, K = 0, V = 0;
  std::int64_t F = 0;  ///< 0: no MLP
  std::int64_t W = 0;  ///< 0: no convolution
  std::int64_t vocab = 0;
  float norm_eps = 1e-6f;
  Gate gate = Gate::sigmoid;
  DeltaRuleOptions delta_rule{};
  DType state = DType::f32;  ///< or bf16

  std::int64_t key_channels() const { return H * K; }
  std::int64_t value_channels() const { return HV * V; }
  std::int64_t channels() const { return 2 * key_channels() + value_channels(); }  ///< C
  std::int64_t gate_channels() const { return gate == Gate::none ? 0 : value_channels(); }
  std::int64_t projections() const { return channels() + gate_channels() + 2 * HV; }  ///< q | k | v | g | b | a
};

/// Matrices behind an RMSNorm have the norm's weight in them: column j times weight j.
struct Layer {
  PackedMatrix in;                  ///< [projections, D]   W_q | W_k | W_v | W_g | W_b | W_a
  const bf16* taps = nullptr;       ///< [W, C]             filters of q | k | v
  const float* b = nullptr;         ///< [H]                optional, as the rest of the gates in comba/delta_rule.h
  const float* d = nullptr;         ///< [H]                optional
  const float* A_log = nullptr;     ///< [HV]
  const float* dt_bias = nullptr;   ///< [HV]
  const bf16* head_norm = nullptr;  ///< [V]
  PackedMatrix out;                 ///< [D, HV V]
  PackedMatrix gate_up;             ///< [2 F, D]  F padded to 8; 8 rows of W_gate, 8 of W_up, 8 of W_gate ..
  PackedMatrix down;                ///< [D, F]
  void* state = nullptr;            ///< [S, HV, V / 16, K, 16]  f32 or bf16, advanced in place
  bf16* tails = nullptr;            ///< [S, W - 1, C]      the last inputs of the convolutions, oldest first
};

inline constexpr std::int64_t kMostRecent = 1024;  ///< tokens that a penalty can look back on

/// How the next token of a text is drawn: generation/token_sampler.h defines it.
struct Sampling {
  double temperature = 1, top_p = 1, min_p = 0;
  std::uint64_t seed = 0;
  std::uint64_t num_drawn = 0;  ///< which of the seed's numbers is next
  std::int64_t top_k = 0;
  float repetition_penalty = 1;
  std::int32_t window = 0;      ///< how many tokens are recent, at most max_window
  std::int32_t num_recent = 0;  ///< tokens that went into `recent` so far; the last is at (num_recent - 1) % window
};

struct Model {
  Dims dims;
  std::vector<Layer> layers;
  const bf16* embedding = nullptr;  ///< [vocab, D]
  PackedMatrix head;                ///< [vocab, D]   times the last norm's weight

  std::int64_t num_slots = 0;       ///< S
  std::int64_t max_rows = 0;        ///< R at most, a multiple of 8
  std::int64_t max_window = 0;      ///< of Sampling, at most kMostRecent
  std::int64_t drawn_vocab = 0;     ///< only ids below it are drawn
  std::int32_t* slots = nullptr;    ///< [R]     of each row; -1: the row is nobody's
  std::int32_t* tokens = nullptr;   ///< [S]     read by the next step, which puts the token after it here
  Sampling* sampling = nullptr;     ///< [S]
  std::int32_t* recent = nullptr;   ///< [S, max_window]  a ring
  std::int32_t* counter = nullptr;  ///< [1]     steps so far
  /// [2, R] of memory that the host reads, too: the tokens that the step drew whose number has this parity; -1 where
  /// a logit was NaN.
  std::int32_t* drawn = nullptr;
  // Scratch, all zero before the first step.
  bf16* residual = nullptr;   ///< [R, padded D]             place_in_rows
  bf16* projected = nullptr;  ///< [R, padded projections]
  bf16* mixed = nullptr;      ///< [R, padded HV V]          place_in_rows
  float* squares = nullptr;   ///< [R, HV, 16]
  bf16* inner = nullptr;      ///< [R, padded F]             place_in_rows
  float* logits = nullptr;    ///< [R, padded vocab]   of the step, without penalty
};

/// Why a model of these dims cannot be stepped here; empty when it can.
std::string refusal(const Dims& dims);

/// The rows that a step of so many texts is made with: few sizes, so that there are few graphs. At most max_rows.
std::int64_t bucket_of(std::int64_t rows, std::int64_t max_rows);

/// Queues one step of `rows` rows on the stream: reads tokens, advances states, draws.
void queue_step(const Model& model, std::int64_t rows, CUstream_st* stream);

/// A step as a CUDA graph, for one number of rows. The model's memory must outlive it, and stay where it is.
class StepGraph {
 public:
  StepGraph(const Model& model, std::int64_t rows, CUstream_st* stream);
  ~StepGraph();
  StepGraph(StepGraph&&) noexcept;

  void launch(CUstream_st* stream) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace comba::model_step
