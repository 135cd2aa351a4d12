#pragma once

#include "operators/delta_rule/cuda/sm90/ring.cuh"
#include "operators/delta_rule/cuda/sm90/sequences.cuh"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// What the kernels that bring the state along a sequence do alike, scan.cuh and fused.cuh.
namespace comba::delta_rule::cuda::sm90 {

/// A block's sequence and value head, as its threads see them.
template <class Shape>
struct ScanPieces {
  using Element = typename Shape::Element;
  using Stage = typename Shape::Stage;
  using Shared = typename Shape::Shared;
  static constexpr int kK = Shape::kK, kSlice = Shape::kSlice;
  static constexpr int kRowBytes = 2 * kSlice;  ///< of v and o
  using FromTile = Product<Element, kSlice, GMMA::Major::K>;
  using FromTransposed = Product<Element, kSlice, GMMA::Major::MN>;
  using State = Accumulators<kK, kSlice>;
  using Rows = Accumulators<kChunk, kSlice>;

  const Arguments& x;
  Shared& shared;
  const Sequence sequence;
  const int head, n;  ///< value head, sequence

  __device__ int count(int chunk) const { return min(kChunk, sequence.end - sequence.begin - chunk * kChunk); }

  /// A warp has done with what `empty` stands for.
  __device__ void release(std::uint64_t& empty) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_barrier(empty);
  }

  /// What a chunk brings to a thread of the state, besides its tiles.
  struct ChunkInputs {
    int present;  ///< tokens
    float feedback[2], beta[2], write[2], decay;
    std::uint32_t values[2][kSlice / 8];  ///< pairs of v where the accumulators of a chunk's rows are

    __device__ void load(const Element* v, const ChunkFactors& factors, int count) {
      present = count;
      decay = factors.decay;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row() + 8 * half, begin = row * kRowBytes, exchange = begin >> 3 & (kRowBytes - 16);
        feedback[half] = factors.feedback[row];
        beta[half] = factors.beta[row];
        write[half] = factors.write[row];
        const char* const from = reinterpret_cast<const char*>(v) + begin + 2 * first_column();
#pragma unroll
        for (int n = 0; n < kSlice / 8; ++n) {
          values[half][n] = *reinterpret_cast<const std::uint32_t*>(from + (n * 16 ^ exchange));
        }
      }
    }

    /// E = diag(beta) (V - diag(feedback) X) in place of X; zero for absent tokens, whatever their values hold.
    __device__ void to_error(Rows& rows) const {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool absent = first_row() + 8 * half >= present;
#pragma unroll
        for (int n = 0; n < kSlice / 8; ++n) {
          const Element* const pair = reinterpret_cast<const Element*>(&values[half][n]);
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            float& e = at(rows, 0, n, half, side);
            e = absent ? 0 : beta[half] * (static_cast<float>(pair[side]) - feedback[half] * e);
          }
        }
      }
    }
  };

  /// Rows of the output by way of shared memory, so that neighbours in memory are written together.
  __device__ void store_rows(const Rows& rows, Element* buffer, int token, int present, int first_v) const {
    store<Element, kSlice>(
        buffer, [&](int n, int half) { return make_float2(at(rows, 0, n, half, 0), at(rows, 0, n, half, 1)); });
    __syncwarp();
    constexpr int kPieces = kSlice / 8;
    const int lane = threadIdx.x % 32, first = threadIdx.x % kWarpGroup / 32 * 16 + lane / kPieces;
    const int v = first_v + lane % kPieces * 8;
    Element* to = static_cast<Element*>(x.o) + sequence.batch * x.o_stride[0] + (token + first) * x.o_stride[1] +
                  head * x.o_stride[2] + v;
#pragma unroll
    for (int i = 0; i < kPieces / 2; ++i, to += 32 / kPieces * x.o_stride[1]) {
      const int row = first + 32 / kPieces * i;
      const int offset = swizzled<kRowBytes>(row * kRowBytes + lane % kPieces * 16);
      const uint4 piece = *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(buffer) + offset);
      if (row < present && v < x.V) *reinterpret_cast<uint4*>(to) = piece;
    }
  }
};

}  // namespace comba::delta_rule::cuda::sm90
