#pragma once

#include "operators/delta_rule/cuda/sm90/arguments.h"
#include "operators/delta_rule/cuda/sm90/tiles.cuh"

/// Sizes of the kernel scan (scan.cuh), and what its shared memory holds.
namespace comba::delta_rule::cuda::sm90 {

template <class Element_, int kK_, int kSlice_, int kGroups_, bool kFullFeedback_, bool kSaves_ = false>
struct ScanShape {
  using Element = Element_;
  static constexpr int kK = kK_, kSlice = kSlice_, kGroups = kGroups_;
  static constexpr bool kFullFeedback = kFullFeedback_;
  static constexpr bool kSaves = kSaves_;  ///< leaves S and Vn for the backward pass
  static constexpr int kThreads = kWarpGroup * (1 + 2 * kGroups);

  // Registers a thread; together no more than a launch gives all warpgroups.
  static constexpr int kProducerRegisters = 24;
  static constexpr int kStateRegisters = kGroups == 2 ? 144 : 240;
  static constexpr int kAssistantRegisters = kGroups == 2 ? 80 : 160;

  struct Stage {
    Element q[kChunk * kK], k[kChunk * kK];
    Element v[kGroups][kChunk * kSlice];  ///< later diag(write) Vn
    Element inverse[kChunk * kChunk], read[kChunk * kChunk];
  };
  struct Slice {
    Element state[kSlice * kK];
    Element error[kSlice * kChunk];  ///< later the output
    Element rest[kSlice * kChunk];   ///< of diag(write) Vn; half of it is used
  };
  struct Control {
    ChunkFactors factors;
    std::uint64_t full, empty;
  };
  struct Feedback {
    Element p[kChunk * kK];
  };
  struct FeedbackControl {
    std::uint64_t full, empty;
  };
  struct Writes {
    Element slice[kGroups][kSlice * kChunk];
  };
  static constexpr bool kOwnWrites = kSaves && kGroups > 1;  ///< else Vn takes the place of M - I
  static constexpr int kSharedBytes = 227 * 1024;
  static constexpr int kFeedbackStages = !kFullFeedback ? 0 : kK == 256 ? 1 : 2;
  static constexpr int kFitting =
      (kSharedBytes - kGroups * sizeof(Slice) - kFeedbackStages * (sizeof(Feedback) + sizeof(FeedbackControl))) /
      (sizeof(Stage) + sizeof(Control) + sizeof(std::uint64_t) + kOwnWrites * sizeof(Writes));
  static constexpr int kStages = kFitting < 4 ? kFitting : 4;
  static_assert(kStages >= 2);
  struct Shared {
    Slice slice[kGroups];
    Stage stage[kStages];
    cute::array<Writes, kOwnWrites ? kStages : 0> writes;
    cute::array<Feedback, kFeedbackStages> feedback;
    Control control[kStages];
    cute::array<FeedbackControl, kFeedbackStages> feedback_control;
    std::uint64_t writes_kept[kStages];
  };
  static_assert(sizeof(Shared) <= kSharedBytes);
};

}  // namespace comba::delta_rule::cuda::sm90
