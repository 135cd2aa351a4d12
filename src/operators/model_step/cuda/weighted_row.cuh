#pragma once

/// A row of logits in the hands of one block or of a cluster of them, and the sums that they form together. The barrier
/// of a cluster also shows its blocks what the others wrote to any memory.
namespace comba::model_step::cuda {

inline constexpr int kSampleThreads = 512;
using Sum = unsigned long long;

struct SampleShared {
  Sum sums[16][kSampleThreads];
  Sum first_digits[16], of_digits[16];
  Sum of_warps[kSampleThreads / 32];
  // What the other blocks of the team read: twice in turn, so that one barrier an exchange is enough.
  Sum exchanged[2][16];
  int token;  ///< of the team's first block
};
__device__ inline SampleShared& sample_shared() {
  extern __shared__ float4 memory[];
  return *reinterpret_cast<SampleShared*>(memory);
}
/// [number of this thread's logit][kSampleThreads]
__device__ inline float* cached_logits() { return reinterpret_cast<float*>(&sample_shared() + 1); }

/// The blocks that work on one row.
template <int kBlocks>
struct Team {
  __device__ static int rank() { return kBlocks == 1 ? 0 : static_cast<int>(blockIdx.x) % kBlocks; }
  /// All threads of all blocks.
  __device__ static void barrier() {
    if constexpr (kBlocks == 1) {
      __syncthreads();
    } else {
#if __CUDA_ARCH__ >= 900
      asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
#endif
    }
  }
  /// The same place in the shared memory of another block.
  template <class T>
  __device__ static T* of(T* place, int rank) {
    if constexpr (kBlocks == 1) {
      return place;
    } else {
      T* there = place;
#if __CUDA_ARCH__ >= 900
      asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(rank));
#endif
      return there;
    }
  }
};

/// Whole numbers in the order of the logits; -0 counts as 0.
__device__ inline unsigned order_of(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float logit_of(unsigned order) {
  return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

/// A row of logits and what their tokens weigh. The team's thread t has those of ids t, t + kStride, ..; in shared
/// memory where they fit.
template <int kBlocks>
class WeightedRow {
 public:
  static constexpr int kStride = kBlocks * kSampleThreads;

  __device__ WeightedRow(const float* logits, int vocab, int cached, double temperature)
      : logits_(logits),
        vocab_(vocab),
        is_cached_((vocab + kStride - 1) / kStride <= cached),
        first_(Team<kBlocks>::rank() * kSampleThreads + static_cast<int>(threadIdx.x)),
        temperature_(temperature) {}

  __device__ int vocab() const { return vocab_; }
  __device__ bool is_cached() const { return is_cached_; }
  __device__ float logit(int id) const { return __ldcg(logits_ + id); }

  /// How many logits this thread has, and which they are.
  __device__ int count() const { return (vocab_ - first_ + kStride - 1) / kStride; }
  __device__ int id(int i) const { return i * kStride + first_; }
  __device__ float number(int i) const {
    return is_cached_ ? cached_logits()[i * kSampleThreads + threadIdx.x] : logit(id(i));
  }
  /// Puts a logit in the place of another of this thread, until restore(). Only where they are cached.
  __device__ void put(int i, float logit) {
    cached_logits()[i * kSampleThreads + threadIdx.x] = logit, is_whole_ = false;
  }
  __device__ void restore() {
    if (is_whole_ || !is_cached_) return;
#pragma unroll 8
    for (int i = 0; i < count(); ++i) cached_logits()[i * kSampleThreads + threadIdx.x] = logit(id(i));
    is_whole_ = true;
  }
  /// Behind the first restore().
  __device__ void set_largest(float largest) { largest_ = largest; }

  __device__ Sum weight(float logit) const {
    if (logit == largest_) return Sum{1} << 43;  // also of two infinities
    const double difference = static_cast<double>(logit) - static_cast<double>(largest_);
    const double exponent = temperature_ == 1 ? difference : difference / temperature_;
    return exponent < -30 ? 0 : static_cast<Sum>(exp(exponent) * 0x1p43);
  }

  /// Sum, or largest, over the team, of whole numbers; every thread gets it.
  template <class Combine>
  __device__ Sum over_team(Sum x, Combine combine) {
    SampleShared& shared = sample_shared();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
    if (lane == 0) shared.of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = lane < kSampleThreads / 32 ? shared.of_warps[lane] : 0;
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
    if constexpr (kBlocks == 1) {
      __syncthreads();  // of_warps has been read
      return x;
    }
    const int turn = next_turn();
    if (threadIdx.x == 0) shared.exchanged[turn][0] = x;
    Team<kBlocks>::barrier();
    x = lane < kBlocks ? *Team<kBlocks>::of(&shared.exchanged[turn][0], lane % kBlocks) : 0;
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
    return x;
  }
  __device__ Sum sum_over_team(Sum x) {
    return over_team(x, [](Sum a, Sum b) { return a + b; });
  }

  /// The sum of what the blocks before this one give.
  __device__ Sum of_blocks_before(Sum of_block) {
    if constexpr (kBlocks == 1) return 0;
    SampleShared& shared = sample_shared();
    const int turn = next_turn();
    if (threadIdx.x == 0) shared.exchanged[turn][0] = of_block;
    Team<kBlocks>::barrier();
    Sum sum = 0;
    for (int rank = 0; rank < Team<kBlocks>::rank(); ++rank) {
      sum += *Team<kBlocks>::of(&shared.exchanged[turn][0], rank);
    }
    return sum;
  }

  /// Each warp has a sum of its block, in all lanes: those of the team for each warp, to `sums`. Every thread sees
  /// them.
  __device__ void sum_of_warps(Sum sum, Sum (&sums)[16]) {
    SampleShared& shared = sample_shared();
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kBlocks > 1) {
      const int turn = next_turn();
      if (lane == 0) shared.exchanged[turn][warp] = sum;
      Team<kBlocks>::barrier();
      sum = lane < kBlocks ? *Team<kBlocks>::of(&shared.exchanged[turn][warp], lane % kBlocks) : 0;
      for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
  }

 private:
  __device__ int next_turn() { return turn_ ^= 1; }

  const float* logits_;
  int vocab_;
  bool is_cached_, is_whole_ = false;
  int first_, turn_ = 0;
  float largest_ = 0;
  double temperature_;
};

}  // namespace comba::model_step::cuda
