#pragma once

#include "operators/delta_rule/cuda/generic/tile.cuh"

/// Chunks of 64 tokens: where they lie, what is known of their rows, and what the kernels leave for each other.
///
/// Rows of q, k and p enter tiles divided by a power of two near their norm, which is exact; what remains of the
/// normalisation, and the decays, are fp32 factors of the rows of products. So nothing is rounded but corrected
/// queries.
namespace comba::delta_rule::cuda::generic {

/// What is known of the rows of a chunk of one value head. Rows of absent tokens have finite factors and zeros in
/// tiles.
struct RowFactors {
  float beta[kSide];
  float g[kSide];        ///< log decay, clamped
  float q_scale[kSide];  ///< powers of two: rows of the tiles are q_scale_i q_i, k_scale_i k_i, p_scale_i p_i
  float k_scale[kSide];
  float p_scale[kSide];
  float q_norm[kSide];  ///< 1 / |row of the tile|, or 1 without l2norm
  float k_norm[kSide];
  float p_norm[kSide];    ///< without b
  float query[kSide];     ///< scale q_norm_i e^{G_i}
  float feedback[kSide];  ///< b p_norm_i e^{G0_i}
  float write[kSide];     ///< k_norm_i e^{G_C - G_i}
  float G[2][kSide];      ///< sums of g times log2(e), and what float leaves of them
  float G0[2][kSide];
  float decay;  ///< e^{G_C}
  float unused[15];
};

/// Matrices between the tokens of a chunk of one value head (README.md section 10), rounded.
template <class Element>
struct Couplings {
  Element feedback[kSide * kSide];  ///< N
  Element read[kSide * kSide];      ///< R M
  RowFactors rows;
};

/// One call of the chunk form. Chunks are numbered by slots: every sequence has one for each of its chunks; with packed
/// sequences some stay unused.
template <class Element>
struct ChunkArguments : Arguments {
  std::int64_t N = 0, slots = 0;
  int K_tiles = 0, V_tiles = 0;             ///< K / 64 and V / 64, rounded up
  Couplings<Element>* couplings = nullptr;  ///< [slots, HV]

  __device__ std::int64_t number(std::int64_t slot, int head) const { return slot * HV + head; }
};

struct Sequence {
  std::int64_t batch;       ///< row of the tensors
  std::int64_t begin, end;  ///< tokens, within the row
  std::int64_t slot;        ///< of its first chunk

  __device__ std::int64_t chunks() const { return end > begin ? (end - begin + kSide - 1) / kSide : 0; }
};

/// Borders cannot be checked before the launch; whatever they say, no token outside of the tensors is touched.
inline __device__ std::int64_t border(const Arguments& x, std::int64_t n) {
  const std::int64_t token = x.cu_seqlens_are_i64 ? static_cast<const std::int64_t*>(x.cu_seqlens)[n]
                                                  : static_cast<const std::int32_t*>(x.cu_seqlens)[n];
  return min(max(token, std::int64_t{0}), x.T);
}

/// Packed sequences: those before number n have at most border / 64 + n chunks, so the slots from there on are its own.
inline __device__ std::int64_t first_slot(const Arguments& x, std::int64_t n) {
  return x.cu_seqlens ? border(x, n) / kSide + n : n * ((x.T + kSide - 1) / kSide);
}

inline __device__ Sequence sequence_at(const Arguments& x, std::int64_t n) {
  if (x.cu_seqlens == nullptr) return {n, 0, x.T, first_slot(x, n)};
  return {0, border(x, n), border(x, n + 1), first_slot(x, n)};
}

/// A chunk as one of the heads sees it.
struct Chunk {
  std::int64_t batch, begin, slot;
  int count = 0;  ///< of tokens; none: nobody uses the slot

  Chunk() = default;
  __device__ Chunk(const Sequence& s, std::int64_t index)
      : batch(s.batch), begin(s.begin + index * kSide), slot(s.slot + index) {
    count = static_cast<int>(max(std::int64_t{0}, min(std::int64_t{kSide}, s.end - begin)));
  }
};

template <class Element>
__device__ Chunk chunk_of_slot(const ChunkArguments<Element>& x, std::int64_t slot) {
  std::int64_t n = 0;
  for (std::int64_t above = x.N; above - n > 1;) {
    const std::int64_t middle = (n + above) / 2;
    (first_slot(x, middle) <= slot ? n : above) = middle;
  }
  const Sequence s = sequence_at(x, n);
  return Chunk(s, slot - s.slot);
}

/// The value head of a block, and what it shares with others.
struct Heads {
  int value, key, feedback;

  __device__ Heads(const Arguments& x, int value)
      : value(value), key(value / x.group), feedback(x.value_heads_per_p > 0 ? value / x.value_heads_per_p : 0) {}
};

/// The tokens of a chunk, of one head of a [B, T, heads, dim] tensor.
template <class Element>
__device__ Window<Element> rows_of(const Strided& x, const Chunk& chunk, int head, int dim) {
  Element* const data =
      static_cast<Element*>(x.data) + chunk.batch * x.stride[0] + chunk.begin * x.stride[1] + head * x.stride[2];
  return Window<Element>(data, x.stride[1], chunk.count, dim);
}

/// A gate of the chunk's token number i.
inline __device__ float gate_of(const Strided& x, const Chunk& chunk, int i, int head) {
  RawGate gate;
  gate.load(x, chunk.batch, chunk.begin + i, head);
  return gate.value(x.dtype);
}

/// What is the same for all tokens of a head.
struct Strengths {
  float b;           ///< p = b p^, where p^ is l2(k), or k; 1 when p is given
  float correction;  ///< of the query: q - correction k (or p)

  __device__ Strengths(const Arguments& x, int key) {
    b = x.b ? x.b[key * x.b_stride] : 1;
    const float d = x.d ? x.d[key * x.d_stride] : 0;
    correction = x.fla && x.p.data == nullptr ? d * b : d;
    if (x.fla && x.l2norm) b = 1;
  }
};

/// Queries, keys and feedback directions of a chunk, as pieces for tiles.
template <class Element>
struct Directions {
  Window<Element> q, k, p;
  Window<Element> along;  ///< what corrects the query: p or k
  float correction;
  bool p_given;

  __device__ Directions(const Arguments& x, const Chunk& chunk, const Heads& heads, float correction)
      : q(rows_of<Element>(x.q, chunk, heads.key, x.K)),
        k(rows_of<Element>(x.k, chunk, heads.key, x.K)),
        p(x.p.data ? rows_of<Element>(x.p, chunk, heads.feedback, x.K) : k),
        along(x.fla ? p : k),
        correction(correction),
        p_given(x.p.data != nullptr) {}

  __device__ Piece query(int row, int column) const {
    if (correction == 0) return q(row, column);
    return q(row, column) - along(row, column) * correction;
  }
};

/// A tile of corrected queries on its way to shared memory.
template <class Element>
struct RawQueries {
  RawTile<Element> q, along;

  __device__ void load(const Directions<Element>& directions, int first) {
    q.load(directions.q, first);
    if (directions.correction != 0) along.load(directions.along, first);
  }
  /// Row i times scale[i].
  __device__ void put(SharedTile<Element>& to, const Directions<Element>& directions, const float* scale) const {
    if (directions.correction == 0) return q.put(to, scale);
    for_each_piece([&](int i, int row, int column) {
      const Piece corrected = q.piece[i].floats() - along.piece[i].floats() * directions.correction;
      store_piece(corrected * scale[row], &to.at[row][column]);
    });
  }
};

/// The factors of a chunk's rows on their way to shared memory.
struct RawRowFactors {
  static constexpr int kVectors = sizeof(RowFactors) / sizeof(uint4);
  static_assert(kVectors <= kBlockThreads);
  uint4 vector = {};

  __device__ void load(const RowFactors& from) {
    if (threadIdx.x < kVectors) vector = reinterpret_cast<const uint4*>(&from)[threadIdx.x];
  }
  __device__ void put(RowFactors& to) const {
    if (threadIdx.x < kVectors) reinterpret_cast<uint4*>(&to)[threadIdx.x] = vector;
  }
};

/// e^{to - from} for sums times log2(e), where to <= from but for rounding; NaN stays.
inline __device__ float decay_between(const float (&to)[2][kSide], int i, const float (&from)[2][kSide], int j) {
  const float difference = to[0][i] - from[0][j] + (to[1][i] - from[1][j]);
  return exp2f(difference > 0 ? 0 : difference);
}

inline __device__ float decay_from_start(const float (&to)[2][kSide], int i) { return exp2f(to[0][i] + to[1][i]); }

}  // namespace comba::delta_rule::cuda::generic
