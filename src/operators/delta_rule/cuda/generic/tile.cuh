#pragma once

#include "operators/delta_rule/cuda/generic/arguments.cuh"

/// Tiles of 64 x 64 elements, which everything of the chunk form consists of, and their products by a block.
///
/// A product of tiles in bf16 or f16 runs on the tensor cores (mma.sync), in f32 as plain fused multiply-adds; sums are
/// fp32 and in a fixed order. Tensors are cut into tiles with zeros beyond their ends.
namespace comba::delta_rule::cuda::generic {

constexpr int kSide = 64;           ///< of a tile; also C, the tokens of a chunk
constexpr int kBlockThreads = 256;  ///< of every kernel of the chunk form

/// A tile in shared memory. Rows are longer by 16 bytes: those of any 8 x 8 elements lie in banks of their own.
template <class Element>
struct alignas(16) SharedTile {
  static constexpr int kStride = kSide + 16 / sizeof(Element);
  Element at[kSide][kStride];
};

/// A tile in registers: a warp has 16 rows of one half of the columns, a thread 16 elements.
struct Accumulators {
  float at[4][2][2] = {};

  static __device__ int row(int half) { return threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + 8 * half; }
  static __device__ int column(int n) { return threadIdx.x / 128 * 32 + 8 * n + threadIdx.x % 4 * 2; }

  /// f(row, column, two elements from there on) for each pair of neighbours the thread has; `half` tells which of its
  /// two rows.
  template <class F>
  __device__ void for_each_pair(const F& f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 4; ++n) f(row(half), column(n), at[n][half]);
    }
  }

  /// f(row, column, element)
  template <class F>
  __device__ void for_each(const F& f) {
    for_each_pair([&](int row, int column, float(&pair)[2]) {
      f(row, column, pair[0]);
      f(row, column + 1, pair[1]);
    });
  }

  /// Row i times factor(i).
  template <class Factor>
  __device__ void scale_rows(const Factor& factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float f = factor(row(half));
#pragma unroll
      for (int n = 0; n < 4; ++n) at[n][half][0] *= f, at[n][half][1] *= f;
    }
  }

  __device__ void scale(float factor) {
    scale_rows([&](int) { return factor; });
  }

  /// Adds factor times the other tile.
  __device__ void add(const Accumulators& x, float factor = 1) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int side = 0; side < 2; ++side) at[n][half][side] += factor * x.at[n][half][side];
      }
    }
  }
};

inline __device__ void store_pair(float* to, float first, float second) {
  *reinterpret_cast<float2*>(to) = make_float2(first, second);
}
inline __device__ void store_pair(__nv_bfloat16* to, float first, float second) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(first, second);
}
inline __device__ void store_pair(__half* to, float first, float second) {
  *reinterpret_cast<__half2*>(to) = __floats2half2_rn(first, second);
}

/// Rounds factor(row) times the accumulators into a tile.
template <class Element, class Factor>
__device__ void store_rows(Accumulators& from, SharedTile<Element>& to, const Factor& factor) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = Accumulators::row(half);
    const float f = factor(row);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      store_pair(&to.at[row][Accumulators::column(n)], f * from.at[n][half][0], f * from.at[n][half][1]);
    }
  }
}

/// What rounding left of factor(row) times the accumulators in `rounded`, rounded in its turn.
template <class Element, class Factor>
__device__ void store_rests(Accumulators& from, const SharedTile<Element>& rounded, SharedTile<Element>& to,
                            const Factor& factor) {
  from.for_each_pair([&](int row, int column, float(&pair)[2]) {
    const Element* const of = &rounded.at[row][column];
    const float f = factor(row);
    store_pair(&to.at[row][column], f * pair[0] - static_cast<float>(of[0]), f * pair[1] - static_cast<float>(of[1]));
  });
}

template <class Element>
__device__ void store(Accumulators& from, SharedTile<Element>& to) {
  from.for_each_pair([&](int row, int column, float(&pair)[2]) { store_pair(&to.at[row][column], pair[0], pair[1]); });
}

/// Eight neighbours of a row.
struct Piece {
  float at[8];

  friend __device__ Piece operator*(Piece x, float factor) {
#pragma unroll
    for (float& value : x.at) value *= factor;
    return x;
  }
  friend __device__ Piece operator-(Piece x, const Piece& y) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x.at[i] -= y.at[i];
    return x;
  }
};

/// The same as it lies in memory.
template <class Element>
struct RawPiece {
  static constexpr int kVectors = sizeof(Element) / 2, kCount = 8 / kVectors;
  uint4 at[kVectors] = {};

  /// `from` is aligned to 16 bytes.
  __device__ void load(const Element* from) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) at[i] = reinterpret_cast<const uint4*>(from)[i];
  }
  __device__ void store(Element* to) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) reinterpret_cast<uint4*>(to)[i] = at[i];
  }

  __device__ Piece floats() const {
    Piece x;
#pragma unroll
    for (int i = 0; i < 8; ++i) x.at[i] = static_cast<float>(reinterpret_cast<const Element*>(at)[i]);
    return x;
  }
};

template <class Element>
__device__ Piece load_piece(const Element* from) {
  RawPiece<Element> raw;
  raw.load(from);
  return raw.floats();
}

template <class Element>
__device__ void store_piece(const Piece& x, Element* to) {
  constexpr int kCount = 16 / sizeof(Element);
#pragma unroll
  for (int i = 0; i < 8; i += kCount) {
    uint4 raw;
    Element* const elements = reinterpret_cast<Element*>(&raw);
#pragma unroll
    for (int j = 0; j < kCount; j += 2) store_pair(elements + j, x.at[i + j], x.at[i + j + 1]);
    *reinterpret_cast<uint4*>(to + i) = raw;
  }
}

/// f(number, row, column) for each piece of a tile that is this thread's.
template <class F>
__device__ void for_each_piece(const F& f) {
  constexpr int kPieces = kSide / 8;
#pragma unroll
  for (int i = 0; i < kSide * kPieces / kBlockThreads; ++i) {
    const int piece = static_cast<int>(threadIdx.x) + kBlockThreads * i;
    f(i, piece / kPieces, piece % kPieces * 8);
  }
}

/// Fills a tile with piece(row, column), rounded.
template <class Element, class MakePiece>
__device__ void fill(SharedTile<Element>& tile, const MakePiece& piece) {
  for_each_piece([&](int, int row, int column) { store_piece(piece(row, column), &tile.at[row][column]); });
}

/// A row-major matrix in device memory whose row and column numbers may lie outside: there it is zero.
template <class Element>
struct Window {
  Element* data = nullptr;
  std::int64_t stride = 0;
  int rows = 0, columns = 0;
  bool vectors = false;  ///< every piece that begins at a multiple of 8 is aligned to 16 bytes and whole

  __device__ Window(Element* data, std::int64_t stride, int rows, int columns)
      : data(data), stride(stride), rows(rows), columns(columns) {
    vectors =
        reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && stride * sizeof(Element) % 16 == 0 && columns % 8 == 0;
  }

  __device__ RawPiece<Element> raw(int row, int column) const {
    RawPiece<Element> x;
    if (row >= rows || column >= columns) return x;
    const Element* const from = data + row * stride + column;
    if (vectors) {
      x.load(from);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (column + i < columns) reinterpret_cast<Element*>(x.at)[i] = from[i];
      }
    }
    return x;
  }

  __device__ Piece operator()(int row, int column) const { return raw(row, column).floats(); }

  __device__ void write(int row, int column, const Piece& x) const {
    if (row >= rows || column >= columns) return;
    Element* const to = data + row * stride + column;
    if (vectors) return store_piece(x, to);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i < columns) to[i] = from_float<Element>(x.at[i]);
    }
  }
};

/// A tile on its way from memory to a tile in shared memory: between load() and put() there is time for other work.
template <class Element>
struct RawTile {
  static constexpr int kPieces = kSide * kSide / 8 / kBlockThreads;
  RawPiece<Element> piece[kPieces];

  /// The columns of the matrix from `first` on.
  __device__ void load(const Window<Element>& from, int first) {
    for_each_piece([&](int i, int row, int column) { piece[i] = from.raw(row, first + column); });
  }
  __device__ void put(SharedTile<Element>& to) const {
    for_each_piece([&](int i, int row, int column) { piece[i].store(&to.at[row][column]); });
  }
  /// Row i times factor[i].
  __device__ void put(SharedTile<Element>& to, const float* factor) const {
    for_each_piece(
        [&](int i, int row, int column) { store_piece(piece[i].floats() * factor[row], &to.at[row][column]); });
  }
};

/// Writes a tile whose first column is column `first` of the matrix.
template <class Element>
__device__ void write(const SharedTile<Element>& tile, const Window<Element>& to, int first) {
  for_each_piece([&](int, int row, int column) { to.write(row, first + column, load_piece(&tile.at[row][column])); });
}

/// Four matrices of 8 x 8 16-bit elements, or their transposes; lane i gives the address of row i % 8 of number i / 8.
template <bool kTranspose, class Element>
__device__ void load_fragments(const Element* row, unsigned (&to)[4]) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
  }
}

/// c += a b of 16 x 16 and 16 x 8 elements.
inline __device__ void multiply_fragments(const unsigned (&a)[4], unsigned b0, unsigned b1, float (&c)[2][2],
                                          __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[1][0]), "+f"(c[1][1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
inline __device__ void multiply_fragments(const unsigned (&a)[4], unsigned b0, unsigned b1, float (&c)[2][2], __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[1][0]), "+f"(c[1][1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Whether a factor is the tile as it is stored or its transpose.
enum class As { stored, transposed };

/// c += a b.
template <As kA, As kB, class Element>
__device__ void multiply(const SharedTile<Element>& a, const SharedTile<Element>& b, Accumulators& c) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = threadIdx.x / 32 % 4 * 16, column = threadIdx.x / 128 * 32;
#pragma unroll
  for (int k = 0; k < kSide; k += 16) {
    unsigned left[4];
    if constexpr (kA == As::stored) {
      load_fragments<false>(&a.at[row + lane % 16][k + lane / 16 * 8], left);
    } else {
      load_fragments<true>(&a.at[k + lane / 16 * 8 + lane % 8][row + lane / 8 % 2 * 8], left);
    }
#pragma unroll
    for (int n = 0; n < 4; n += 2) {
      unsigned right[4];
      const int first = column + 8 * n;
      if constexpr (kB == As::stored) {
        load_fragments<true>(&b.at[k + lane / 8 % 2 * 8 + lane % 8][first + lane / 16 * 8], right);
      } else {
        load_fragments<false>(&b.at[first + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8], right);
      }
      multiply_fragments(left, right[0], right[1], c.at[n], Element{});
      multiply_fragments(left, right[2], right[3], c.at[n + 1], Element{});
    }
  }
}

/// The same in f32.
template <As kA, As kB>
__device__ void multiply(const SharedTile<float>& a, const SharedTile<float>& b, Accumulators& c) {
#pragma unroll 4
  for (int k = 0; k < kSide; ++k) {
    float left[2], right[4][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Accumulators::row(half);
      left[half] = kA == As::stored ? a.at[row][k] : a.at[k][row];
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int column = Accumulators::column(n);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        right[n][side] = kB == As::stored ? b.at[k][column + side] : b.at[column + side][k];
      }
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          c.at[n][half][side] = fmaf(left[half], right[n][side], c.at[n][half][side]);
        }
      }
    }
  }
}

}  // namespace comba::delta_rule::cuda::generic
