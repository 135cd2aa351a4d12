#pragma once

#include <cfloat>

#include "base/random_bits.h"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/model_step.h"

/// The next token of each row, as generation/token_sampler.h defines it. In the order of falling logits (of equal ones
/// the smaller id first) a token has weights before it; weights are whole numbers, 2^43 e^((logit - largest) / T), so
/// that their sums do not depend on who adds. top-k, top-p and min-p each keep a beginning of that order, hence the
/// shortest of them; a random whole number below its weight is a place in it.
///
/// Nothing is sorted: the logit at a place is found 4 bits at a time, by the weights (or numbers) of the tokens with
/// each of 16 values of these bits, summed by each thread for itself.
///
/// Grid: rows. Block: 512 threads. Shared memory: [16][512] sums, and the logits of up to 40,960 tokens; those of
/// larger vocabularies are read again each time.
namespace comba::model_step::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kCachedLogits = 40960;
using Sum = unsigned long long;

struct SampleShared {
  Sum sums[16][kSampleThreads];
  Sum first_digits[16];
  float logits[kCachedLogits];
};
__device__ inline SampleShared& sample_shared() {
  extern __shared__ float4 memory[];
  return *reinterpret_cast<SampleShared*>(memory);
}

struct SampleArguments {
  float* logits;  ///< [R, stride]
  std::int64_t stride;
  int vocab;
  const std::int32_t* slots;
  int num_slots;
  Sampling* sampling;    ///< [S]
  std::int32_t* recent;  ///< [S, max_window]
  std::int64_t max_window;
  std::int32_t* tokens;  ///< [S]
  const std::int32_t* counter;
  std::int32_t* drawn;  ///< [2, max_rows]
  std::int64_t max_rows;
};

/// Whole numbers in the order of the logits; -0 counts as 0.
__device__ inline unsigned order_of(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float logit_of(unsigned order) {
  return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

/// Sum, or largest, over the block; every thread gets it.
template <class Combine>
__device__ Sum over_block(Sum x, Combine combine) {
  __shared__ Sum of_warps[kSampleThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = of_warps[threadIdx.x % (kSampleThreads / 32)];
  for (int distance = kSampleThreads / 64; distance > 0; distance /= 2)
    x = combine(x, __shfl_xor_sync(~0u, x, distance));
  return x;
}
__device__ inline Sum sum_over_block(Sum x) {
  return over_block(x, [](Sum a, Sum b) { return a + b; });
}

/// The logits of a row and what their tokens weigh. Thread t has those of ids t, t + 512, ..; in shared memory where
/// they fit.
class WeightedRow {
 public:
  __device__ WeightedRow(const float* logits, int vocab, float largest, double temperature)
      : logits_(logits), vocab_(vocab), largest_(largest), temperature_(temperature) {}

  __device__ int vocab() const { return vocab_; }
  __device__ bool is_cached() const { return vocab_ <= kCachedLogits; }
  __device__ float logit(int id) const { return is_cached() ? sample_shared().logits[id] : __ldcg(logits_ + id); }

  /// How many logits this thread has, and which they are.
  __device__ int count() const {
    return (vocab_ - static_cast<int>(threadIdx.x) + kSampleThreads - 1) / kSampleThreads;
  }
  __device__ float number(int i) const { return logit(i * kSampleThreads + static_cast<int>(threadIdx.x)); }
  /// Puts a logit in the place of another of this thread, until all are loaded again. Only where they are cached.
  __device__ static void put(int i, float logit) { sample_shared().logits[i * kSampleThreads + threadIdx.x] = logit; }
  __device__ void load_again() const {
#pragma unroll 16
    for (int i = 0; i < count(); ++i) put(i, __ldcg(logits_ + i * kSampleThreads + threadIdx.x));
  }

  __device__ Sum weight(float logit) const {
    if (logit == largest_) return Sum{1} << 43;  // also of two infinities
    const double difference = static_cast<double>(logit) - static_cast<double>(largest_);
    const double exponent = temperature_ == 1 ? difference : difference / temperature_;
    return exponent < -30 ? 0 : static_cast<Sum>(exp(exponent) * 0x1p43);
  }

 private:
  const float* logits_;
  int vocab_;
  float largest_;
  double temperature_;
};

/// A group of equal logits, and what comes before it.
struct Found {
  float logit;
  Sum before;
};

/// For each value of 4 bits of the order, behind the bits that are known: the sum of measure(logit). `count`: of this
/// thread's logits those to be looked at; where they are cached, those with the known bits are left.
template <class Measure>
__device__ void sum_digits(const WeightedRow& row, int shift, unsigned known, int& count, const Measure& measure,
                           Sum (&of_digits)[16]) {
  auto& sums = sample_shared().sums;
  for (int digit = 0; digit < 16; ++digit) sums[digit][threadIdx.x] = 0;
  const unsigned above = shift == 28 ? 0 : ~0u << (shift + 4);
  const auto is_known = [&](float logit) { return (order_of(logit) & above) == known; };
  if (row.is_cached() && above != 0) {  // first, so that all lanes are busy when they measure
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      const float logit = row.number(i);
      if (is_known(logit)) WeightedRow::put(kept++, logit);
    }
    count = kept;
  }
  for (int i = 0; i < count; ++i) {
    const float logit = row.number(i);
    if (is_known(logit)) sums[order_of(logit) >> shift & 15][threadIdx.x] += measure(logit);
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  Sum sum = 0;
  for (int i = lane; i < kSampleThreads; i += 32) sum += sums[warp][i];
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (lane == 0) of_digits[warp] = sum;
  __syncthreads();
}
static_assert(kSampleThreads == 16 * 32);

/// The logit at which the sum, in falling order, of measure(logit) reaches `target`, which all together do.
/// `first_digits`: the sums for the highest bits, where they are known.
template <class Measure>
__device__ Found find(const WeightedRow& row, Sum target, const Measure& measure, const Sum* first_digits = nullptr) {
  __shared__ Sum of_digits[16];
  unsigned known = 0;  // the upper bits of the order of the logit
  Sum before = 0;
  int count = row.count();
  for (int shift = 28; shift >= 0; shift -= 4) {
    const Sum* sums = first_digits;
    if (shift < 28 || sums == nullptr) {
      sum_digits(row, shift, known, count, measure, of_digits);
      sums = of_digits;
    }
    int digit = 15;
    while (digit > 0 && before + sums[digit] < target) before += sums[digit--];
    known |= static_cast<unsigned>(digit) << shift;
  }
  if (row.is_cached()) row.load_again();
  return {logit_of(known), before};
}

/// The id of number `index` of the tokens with this logit, by rising ids.
__device__ inline int id_of(const WeightedRow& row, float logit, Sum index) {
  __shared__ int found;
  const int per_thread = (row.vocab() + kSampleThreads - 1) / kSampleThreads;
  const int begin = static_cast<int>(threadIdx.x) * per_thread, end = min(begin + per_thread, row.vocab());
  __syncthreads();  // the logits of other threads are there again
  int count = 0;
  for (int id = begin; id < end; ++id) count += row.logit(id) == logit;
  // Of the threads before this one.
  __shared__ int of_warps[kSampleThreads / 32];
  int sum = count;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == 31) of_warps[threadIdx.x / 32] = sum;
  __syncthreads();
  for (int w = 0; w < static_cast<int>(threadIdx.x) / 32; ++w) sum += of_warps[w];
  Sum next = static_cast<Sum>(sum - count);
  if (next <= index && index < next + count) {
    for (int id = begin; id < end; ++id) {
      if (row.logit(id) == logit && next++ == index) found = id;
    }
  }
  __syncthreads();
  return found;
}

/// The least whole number that is at least `bound` once it is a double.
__device__ inline Sum least_reaching(double bound) {
  Sum sum = static_cast<Sum>(bound);
  while (sum > 0 && static_cast<double>(sum - 1) >= bound) --sum;
  while (static_cast<double>(sum) < bound) ++sum;
  return sum;
}

__device__ inline int draw(const WeightedRow& row, const Sampling& options) {
  const auto weight = [&](float logit) { return row.weight(logit); };
  const auto sum_where = [&](const auto& condition) {
    Sum sum = 0;
    for (int i = 0; i < row.count(); ++i) {
      const float logit = row.number(i);
      if (condition(logit)) sum += weight(logit);
    }
    return sum_over_block(sum);
  };
  Sum(&first_digits)[16] = sample_shared().first_digits;
  int count = row.count();
  sum_digits(row, 28, 0, count, weight, first_digits);
  Sum total = 0;
  for (const Sum sum : first_digits) total += sum;
  if (options.top_k > 0 && options.top_k < row.vocab()) {
    const auto k = static_cast<Sum>(options.top_k);
    const Found last = find(row, k, [](float) { return Sum{1}; });
    const unsigned order = order_of(last.logit);
    total = sum_where([&](float logit) { return order_of(logit) > order; }) + (k - last.before) * weight(last.logit);
  }
  const Sum all = total;
  if (options.min_p > 0) {
    const auto least = static_cast<Sum>(options.min_p * 0x1p43);
    total = min(total, sum_where([&](float logit) { return weight(logit) >= least; }));
  }
  if (options.top_p < 1) {
    const Sum enough = max(Sum{1}, least_reaching(options.top_p * static_cast<double>(all)));
    const Found last = find(row, enough, weight, first_digits);
    const Sum one = weight(last.logit);
    total = min(total, last.before + (enough - last.before + one - 1) / one * one);
  }
  const Sum random = random_bits(options.seed, options.num_drawn) >> 11;
  const Sum place = __umul64hi(random, total) << 11 | random * total >> 53;
  const Found at = find(row, place + 1, weight, first_digits);
  return id_of(row, at.logit, (place - at.before) / weight(at.logit));
}

/// Tokens drawn lately become less likely while this lives; then the logits are what they were.
class Penalty {
 public:
  /// Each thread has places in the window. All logits are read before one is written: a token may be there twice.
  __device__ Penalty(float* logits, int vocab, const Sampling& options, const std::int32_t* recent) {
    const float penalty = options.repetition_penalty;
    const int count = penalty == 1 ? 0 : min(options.num_recent, options.window);
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const int place = i * kSampleThreads + static_cast<int>(threadIdx.x);
      const int id = place < count ? recent[place] : -1;
      if (id >= 0 && id < vocab) logits_[i] = logits + id, before_[i] = __ldcg(logits_[i]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      const float before = before_[i];
      if (logits_[i]) __stcg(logits_[i], before > 0 ? before / penalty : before * penalty);
    }
    __syncthreads();
  }
  __device__ void take_back() const {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      if (logits_[i]) __stcg(logits_[i], before_[i]);
    }
  }

 private:
  static constexpr int kPlaces = kMostRecent / kSampleThreads;
  float* logits_[kPlaces] = {};
  float before_[kPlaces] = {};
};

__global__ __launch_bounds__(kSampleThreads, 1) void sample(const SampleArguments x) {
  let_next_begin();
  const int row_number = static_cast<int>(blockIdx.x);
  const std::int32_t slot = x.slots[row_number];
  wait_for_previous();
  if (slot < 0 || slot >= x.num_slots) return;
  Sampling& options = x.sampling[slot];
  float* const logits = x.logits + row_number * x.stride;
  std::int32_t* const recent = x.recent + slot * x.max_window;
  const Penalty penalty(logits, x.vocab, options, recent);

  // The largest, and of equals the first: with falling ids below the order.
  Sum largest = 0;
  bool is_nan = false;
  const bool is_cached = x.vocab <= kCachedLogits;
#pragma unroll 16
  for (int id = static_cast<int>(threadIdx.x); id < x.vocab; id += kSampleThreads) {
    const float logit = __ldcg(logits + id);
    if (is_cached) sample_shared().logits[id] = logit;
    is_nan |= isnan(logit);
    largest = max(largest, static_cast<Sum>(order_of(logit)) << 32 | static_cast<unsigned>(~id));
  }
  largest = over_block(largest, [](Sum a, Sum b) { return max(a, b); });
  int token = static_cast<int>(~static_cast<unsigned>(largest));
  if (__syncthreads_or(is_nan)) {
    token = -1;
  } else if (options.temperature != 0 && options.top_k != 1 && x.vocab > 1) {
    token = draw({logits, x.vocab, logit_of(static_cast<unsigned>(largest >> 32)), options.temperature}, options);
  }
  penalty.take_back();
  if (threadIdx.x != 0) return;
  x.tokens[slot] = max(token, 0);
  if (options.window > 0) recent[options.num_recent % options.window] = token, ++options.num_recent;
  ++options.num_drawn;
  x.drawn[(*x.counter & 1) * x.max_rows + row_number] = token;
}

}  // namespace comba::model_step::cuda
