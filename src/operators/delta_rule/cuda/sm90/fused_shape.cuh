#pragma once

#include "operators/delta_rule/cuda/sm90/gates.cuh"
#include "operators/delta_rule/cuda/sm90/inverse.cuh"

/// Sizes of the kernel fused (fused.cuh), and what its shared memory holds.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_, int kSlice_>
struct FusedShape {
  using Element = Element_;
  static constexpr int kK = kK_, kSlice = kSlice_, kGroups = 2;  ///< all of V is in a block
  static constexpr bool kFullFeedback = false;
  static constexpr int kThreads = kWarpGroup * (1 + 2 * kGroups);
  static constexpr int kFirstHelper = kWarpGroup * (1 + kGroups);  ///< number of the first thread of the first one

  // Registers a thread; together no more than a launch gives all warpgroups.
  static constexpr int kProducerRegisters = 24, kStateRegisters = 144, kAssistantRegisters = 80;

  /// Of chunks: q and k of one before the state comes to it, so that M and R M are made; v only then.
  static constexpr int kStages = 3, kValueStages = 2;

  struct Slice {
    Element state[kSlice * kK];
    Element error[kSlice * kChunk];  ///< later the output
  };
  struct Stage {
    Element q[kChunk * kK], k[kChunk * kK];
  };
  struct Values {
    Element slice[kGroups][kChunk * kSlice];  ///< v, later diag(write) Vn
  };
  struct Norms {
    float q[kChunk], k[kChunk];  ///< 1 / |q~_i|, 1 / |k_i|; absent tokens: 0
  };
  struct Control {
    ChunkFactors factors;
    std::uint64_t full, empty, factored;
  };
  struct Ring {
    std::uint64_t full, empty;
  };

  struct Shared {
    Slice slice[kGroups];
    Stage stage[kStages];
    Values values[kValueStages];
    Element rest[kSlice * kChunk];  ///< of diag(write) Vn: of each slice half of the columns
    Element inverse[kChunk * kChunk], read[kChunk * kChunk];
    float solved[kChunk][kInverseStride];  ///< A, then M
    ChunkGates gates;
    Norms norms[2];                                                ///< of even chunks and of odd ones
    alignas(16) float column_factor[2 * kWarpGroup / 32][kChunk];  ///< of each warp of the helpers
    Control control[kStages];
    Ring values_control[kValueStages], inverse_control, read_control;
    double first_half;
  };
  static_assert(sizeof(Shared) <= 227 * 1024);
};

}  // namespace comba::delta_rule::cuda::sm90
