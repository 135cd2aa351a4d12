#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Sizes of the kernel reverse (reverse.cuh), and what its shared memory holds.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_, int kSlice_, int kGroups_>
struct ReverseShape {
  using Element = Element_;
  static constexpr int kK = kK_, kSlice = kSlice_, kGroups = kGroups_;
  static constexpr int kThreads = kWarpGroup * (1 + 2 * kGroups);

  static constexpr int kProducerRegisters = 24;
  static constexpr int kStateRegisters = kGroups == 2 ? 160 : 240;
  static constexpr int kAssistantRegisters = kGroups == 2 ? 64 : 160;

  struct Stage {
    Element k[kChunk * kK];
    Element d_o[kGroups][kChunk * kSlice];     ///< later what is multiplied by K^T
    Element scaled[kGroups][kChunk * kSlice];  ///< diag(query) dO, transposed
    Element inverse[kChunk * kChunk], read[kChunk * kChunk];
  };
  struct Queries {
    Element q[kChunk * kK];
  };
  struct Slice {
    Element state[kSlice * kK], d_write[kSlice * kChunk], d_error[kChunk * kSlice];
  };
  struct alignas(16) Control {  // bulk copies go to multiples of 16 bytes
    ChunkFactors factors;
    std::uint64_t full, empty, scaled;
  };
  struct QueryControl {
    std::uint64_t full, empty;
  };
  static constexpr int stages(int queries) {
    return (227 * 1024 - kGroups * sizeof(Slice) - queries * (sizeof(Queries) + sizeof(QueryControl))) /
           (sizeof(Stage) + sizeof(Control));
  }
  static constexpr int kQueryStages = stages(2) >= 2 ? 2 : 1;
  static constexpr int kStages = stages(kQueryStages) < 4 ? stages(kQueryStages) : 4;
  static_assert(kStages >= 2, "the assistant is a chunk ahead");
  struct Shared {
    Slice slice[kGroups];
    Stage stage[kStages];
    Queries queries[kQueryStages];
    Control control[kStages];
    QueryControl query_control[kQueryStages];
  };
};

}  // namespace comba::delta_rule::cuda::sm90
