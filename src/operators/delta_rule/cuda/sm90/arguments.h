#pragma once

#include <cuda.h>

#include <cstdint>

#include "comba/dtype.h"

/// What the kernels of sm90 are told, and what prepare leaves for scan.
namespace comba::delta_rule::cuda::sm90 {

constexpr int kChunk = 64;  ///< tokens of a chunk
constexpr int kSavedRows =
    32;  ///< the backward pass reads the rows of states by as many at once: V of them, rounded up

/// A gate [B, T, HV] on the device, of any floating dtype; strides in elements.
struct Gate {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t stride[3] = {};
};

/// A parameter of each head; absent: no data.
struct PerHead {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

/// A state [N, HV, K, V] in fp32; absent: no data.
struct States {
  float* data = nullptr;
  std::int64_t stride[3] = {};
};

/// Where the sequences lie. Every sequence has a slot for each of its chunks; with packed sequences some stay unused.
struct Sequences {
  const void* cu_seqlens = nullptr;  ///< [N + 1], or null: N rows of T tokens
  bool are_i64 = false;
  int N = 0;
  std::int64_t T = 0;
  int slots = 0;    ///< of all sequences together
  int at_once = 1;  ///< sequences, of equal length, whose chunks are in turns where kernels follow each other
};

/// Factors of the rows of a chunk. Bulk copies want 16 bytes of alignment, here and in shared memory.
struct alignas(16) ChunkFactors {
  float feedback[kChunk];  ///< of p_i or k_i in the error: e^{G0_i} / |p_i| or b e^{G0_i} / |k_i|
  float beta[kChunk];
  float write[kChunk];  ///< of k_i in the state: e^{G_C - G_i} / |k_i|
  float query[kChunk];  ///< of q_i: scale e^{G_i} / |q_i|
  float decay;          ///< e^{G_C}
};

/// What a chunk of one value head is once its state is left out (README.md section 8), as it lies in the workspace.
/// Tiles are K-major and swizzled by 128 bytes, as wgmma reads them.
struct alignas(64) ChunkMatrices {
  std::uint16_t inverse[kChunk * kChunk];  ///< M - I, with M = (I + diag(beta) A)^-1
  std::uint16_t read[kChunk * kChunk];     ///< R M, with the normalisation of q and k
  ChunkFactors factors;
  unsigned written;  ///< warps of prepare that have written their part, while scan follows it (ready.cuh)
};

struct SavedGates;                      ///< gates and norms of a chunk, for the backward pass
constexpr int kSavedGatesBytes = 1808;  ///< of one

/// One call. Tensor maps have the dims (K or V, heads, T, B).
struct Arguments {
  CUtensorMap q, k, p;  ///< boxes of 64 columns and 64 tokens; p may be absent
  CUtensorMap v;        ///< boxes of a slice's columns and 64 tokens
  Gate step, decay;     ///< beta or beta_logit, g or a
  PerHead b, d, A_log, dt_bias;
  States initial_state, final_state;
  void* o = nullptr;  ///< [B, T, HV, V]; absent: the states alone are wanted
  std::int64_t o_stride[3] = {};
  ChunkMatrices* chunks = nullptr;  ///< [slots, HV]
  // For the backward pass, of every chunk of every value head; absent: not wanted. Tiles in 16 bits, blocks of 64
  // columns, as wgmma reads them.
  SavedGates* gates = nullptr;      ///< [slots, HV]
  std::uint16_t* states = nullptr;  ///< S^T [slots, HV], a tile of V_rows x K
  std::uint16_t* writes = nullptr;  ///< Vn^T [slots, HV], a tile of V_rows x 64
  int V_rows = 0;                   ///< V, rounded up to a multiple of 64
  Sequences sequences;
  int piece_heads = 1, pieces_of_group = 1;  ///< how prepare shares out the value heads of a key head
  int prepare_multiprocessors = 0;  ///< that prepare has to itself while scan follows it; none: scan waits for its end
  bool full_feedback = false, p_of_value_heads = false;
  bool beta_given = false, gated_delta = false, fla = false, l2norm = false;
  int K = 0, V = 0, H = 0, HV = 0, group = 1;
  float l2norm_eps = 0, scale = 1, beta_scale = 1;
};

}  // namespace comba::delta_rule::cuda::sm90
