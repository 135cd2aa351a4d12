#pragma once

#include "base/random_bits.h"
#include "operators/model_step/cuda/dependent_launch.cuh"
#include "operators/model_step/cuda/weighted_row.cuh"
#include "operators/model_step/model_step.h"

/// The next token of each row, as generation/token_sampler.h defines it. In the order of falling logits (of equal ones
/// the smaller id first) a token has weights before it; weights are whole numbers, 2^43 e^((logit - largest) / T), so
/// that their sums do not depend on who adds. top-k, top-p and min-p each keep a beginning of that order, hence the
/// shortest of them; a random whole number below its weight is a place in it.
///
/// Nothing is sorted: the logit at a place is found 4 bits at a time, by the weights (or numbers) of the tokens with
/// each of 16 values of these bits, summed by each thread for itself.
///
/// Grid: teams of kBlocks blocks, one a row: a cluster (from compute capability 9.0), or one block alone. Block: 512
/// threads. Shared memory: [16][512] sums, what the team exchanges, and the block's share of the logits; where they do
/// not fit they are read again each time. Which token is drawn does not depend on the size of the team.
namespace comba::model_step::cuda {

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

/// A group of equal logits, and what comes before it.
struct Found {
  float logit;
  Sum before;
};

/// For each value of 4 bits of the order, behind the bits that are known: the sum of measure(logit). `count`: of this
/// thread's logits those to be looked at; where they are cached, those with the known bits are left.
template <int kBlocks, class Measure>
__device__ void sum_digits(WeightedRow<kBlocks>& row, int shift, unsigned known, int& count, const Measure& measure,
                           Sum (&of_digits)[16]) {
  auto& sums = sample_shared().sums;
  for (int digit = 0; digit < 16; ++digit) sums[digit][threadIdx.x] = 0;
  const unsigned above = shift == 28 ? 0 : ~0u << (shift + 4);
  const auto is_known = [&](float logit) { return (order_of(logit) & above) == known; };
  if (row.is_cached() && above != 0) {  // first, so that all lanes are busy when they measure
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      const float logit = row.number(i);
      if (is_known(logit)) row.put(kept++, logit);
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
  row.sum_of_warps(sum, of_digits);
}
static_assert(kSampleThreads == 16 * 32);

/// The logit at which the sum, in falling order, of measure(logit) reaches `target`, which all together do.
/// `first_digits`: the sums for the highest bits, where they are known.
template <int kBlocks, class Measure>
__device__ Found find(WeightedRow<kBlocks>& row, Sum target, const Measure& measure,
                      const Sum* first_digits = nullptr) {
  Sum(&of_digits)[16] = sample_shared().of_digits;
  unsigned known = 0;  // the upper bits of the order of the logit
  Sum before = 0;
  row.restore();
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
    __syncthreads();  // of_digits has been read
  }
  return {logit_of(known), before};
}

/// The id of number `index` of the tokens with this logit, by rising ids: for the team's first block.
template <int kBlocks>
__device__ int id_of(WeightedRow<kBlocks>& row, float logit, Sum index) {
  SampleShared& shared = sample_shared();
  const int rank = Team<kBlocks>::rank(), thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int per_thread = (row.vocab() + row.kStride - 1) / row.kStride;
  const int begin = min((rank * kSampleThreads + thread) * per_thread, row.vocab());
  const int end = min(begin + per_thread, row.vocab());
  unsigned count = 0;
  for (int id = begin; id < end; ++id) count += row.logit(id) == logit;
  // Of the threads before this one, in this block and in those before it.
  unsigned sum = count;
  for (int distance = 1; distance < 32; distance *= 2) {
    const unsigned other = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == 31) shared.of_warps[thread / 32] = sum;
  __syncthreads();
  Sum of_block = 0, next = sum - count;
  for (int warp = 0; warp < kSampleThreads / 32; ++warp) {
    of_block += shared.of_warps[warp];
    if (warp < thread / 32) next += shared.of_warps[warp];
  }
  next += row.of_blocks_before(of_block);
  if (next <= index && index < next + count) {
    for (int id = begin; id < end; ++id) {
      if (row.logit(id) == logit && next++ == index) *Team<kBlocks>::of(&shared.token, 0) = id;
    }
  }
  Team<kBlocks>::barrier();
  return shared.token;
}

/// The least whole number that is at least `bound` once it is a double.
__device__ inline Sum least_reaching(double bound) {
  Sum sum = static_cast<Sum>(bound);
  while (sum > 0 && static_cast<double>(sum - 1) >= bound) --sum;
  while (static_cast<double>(sum) < bound) ++sum;
  return sum;
}

/// For the team's first block.
template <int kBlocks>
__device__ int draw(WeightedRow<kBlocks>& row, const Sampling& options) {
  const auto weight = [&](float logit) { return row.weight(logit); };
  const auto sum_where = [&](const auto& condition) {
    Sum sum = 0;
    row.restore();
    for (int i = 0; i < row.count(); ++i) {
      const float logit = row.number(i);
      if (condition(logit)) sum += weight(logit);
    }
    return row.sum_over_team(sum);
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

/// Makes tokens drawn lately less likely, until it is taken back.
class Penalty {
 public:
  /// Each thread has places in the window. All logits are read before one is written: a token may be there twice.
  __device__ void impose(float* logits, int vocab, const Sampling& options, const std::int32_t* recent) {
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
  }
  __device__ void take_back() const {
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

/// `cached`: logits of a thread that fit into shared memory.
template <int kBlocks>
__global__ __launch_bounds__(kSampleThreads, 1) void sample(const SampleArguments x, const int cached) {
  let_next_begin();
  const int row_number = static_cast<int>(blockIdx.x) / kBlocks;
  const bool is_first = Team<kBlocks>::rank() == 0;
  const std::int32_t slot = x.slots[row_number];
  wait_for_previous();
  if (slot < 0 || slot >= x.num_slots) return;  // the whole team
  Sampling& options = x.sampling[slot];
  float* const logits = x.logits + row_number * x.stride;
  std::int32_t* const recent = x.recent + slot * x.max_window;
  Penalty penalty;
  if (is_first) penalty.impose(logits, x.vocab, options, recent);
  Team<kBlocks>::barrier();

  // The largest, and of equals the first: with falling ids below the order. NaN is above all.
  WeightedRow<kBlocks> row(logits, x.vocab, cached, options.temperature);
  row.restore();
  constexpr Sum kNan = ~Sum{0};
  Sum largest = 0;
#pragma unroll 8
  for (int i = 0; i < row.count(); ++i) {
    const float logit = row.number(i);
    const Sum place = static_cast<Sum>(order_of(logit)) << 32 | static_cast<unsigned>(~row.id(i));
    largest = max(largest, isnan(logit) ? kNan : place);
  }
  largest = row.over_team(largest, [](Sum a, Sum b) { return max(a, b); });
  int token = static_cast<int>(~static_cast<unsigned>(largest));
  if (largest == kNan) {
    token = -1;
  } else if (options.temperature != 0 && options.top_k != 1 && x.vocab > 1) {
    row.set_largest(logit_of(static_cast<unsigned>(largest >> 32)));
    token = draw(row, options);
  }
  Team<kBlocks>::barrier();  // all have read logits, options and each other's memory
  if (!is_first) return;
  penalty.take_back();
  if (threadIdx.x != 0) return;
  x.tokens[slot] = max(token, 0);
  if (options.window > 0) recent[options.num_recent % options.window] = token, ++options.num_recent;
  ++options.num_drawn;
  x.drawn[(*x.counter & 1) * x.max_rows + row_number] = token;
}

}  // namespace comba::model_step::cuda
