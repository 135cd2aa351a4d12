#pragma once

#include <cuda.h>

#include "operators/cuda/bulk_copy.cuh"
#include "operators/delta_rule/cuda/generic/prepare.cuh"

/// How decode cuts states into pieces, and what a block of it has in shared memory.
namespace comba::delta_rule::cuda::sm90 {

using bulk_copy::ArrivalBarrier;
using generic::DecodeArguments;
using generic::TokenGates;

struct StateDecode {
  CUtensorMap states;  ///< [N, HV, K, V] in boxes of kKeys rows, each swizzled by its width
  DecodeArguments call;
};

/// A place in a ring, and which turn of it this is.
template <int kPlaces>
struct Turn {
  int place = 0;
  unsigned parity = 0;
  __device__ void advance(int steps = 1) {
    place += steps;
    if (place >= kPlaces) place -= kPlaces, parity ^= 1;
  }
};

/// K padded to kKeys; kBoxes boxes of rows of kRowBytes (64 or 128) make a piece. Of the kStages pieces of a block
/// kLater are still read by their stores when the next one is stored.
template <class StateElement_, int kKeys_, int kRowBytes_, int kBoxes_, int kStages_, int kLater_, int kBlocks_>
struct DecodeShape {
  using StateElement = StateElement_;
  static constexpr int kKeys = kKeys_, kRowBytes = kRowBytes_, kBoxes = kBoxes_;
  static constexpr int kStages = kStages_, kLater = kLater_;
  static constexpr int kBlocks = kBlocks_;  ///< of a multiprocessor
  static_assert(kLater < kStages && (kRowBytes == 64 || kRowBytes == 128));

  static constexpr int kVector = 16 / sizeof(StateElement);  ///< columns of a lane
  static constexpr int kChains = kKeys / (2 * static_cast<int>(sizeof(StateElement)));
  static constexpr int kRowLanes = kChains < 32 ? 32 / kChains : 1;  ///< lanes that share a row
  static constexpr int kLaneChains = kChains > 32 ? kChains / 32 : 1;
  static constexpr int kChainRows = kKeys / kChains;
  static constexpr int kWarpColumns = kRowLanes * kVector;
  static constexpr int kBoxColumns = kRowBytes / static_cast<int>(sizeof(StateElement));
  static constexpr int kColumns = kBoxes * kBoxColumns;  ///< of a piece
  static constexpr int kStateWarps = kColumns / kWarpColumns, kTokenWarps = 2;
  static constexpr int kThreads = 32 * (kStateWarps + kTokenWarps + 1);
  static constexpr int kBoxBytes = kKeys * kRowBytes;
  static constexpr int kTokens = 2 * kTokenWarps;  ///< places for tokens that are ready

  struct Token {
    float q[kKeys], k[kKeys], p[kKeys], v[kColumns];
    TokenGates gates;
  };
  /// What is to be done with a stage.
  struct Order {
    int batch, head, column;
    bool skipped, stored;
    std::int64_t accepted, state;
  };
  struct Shared {
    std::uint8_t stages[kStages][kBoxes][kBoxBytes];
    Token tokens[kTokens];
    Order orders[kStages];
    ArrivalBarrier arrived[kStages], done[kStages];  ///< a stage is brought, has its new state
    ArrivalBarrier token_ready[kTokens], token_free[kTokens];
  };
};

/// Which columns of whose state: piece `number` of the call.
struct PieceIndex {
  int batch, head, column;
  __device__ PieceIndex(const DecodeArguments& x, unsigned number, int columns) {
    const unsigned slices = x.num_slices, heads = x.HV, slice_of = number / slices;
    column = static_cast<int>(number - slice_of * slices) * columns;
    batch = static_cast<int>(slice_of / heads);
    head = static_cast<int>(slice_of - batch * heads);
  }
};

}  // namespace comba::delta_rule::cuda::sm90
