// The chunked CPU implementation, compiled once per instruction set: each is an Implementation of its own.
#include "operators/delta_rule/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "operators/delta_rule/cpu/chunk.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "operators/delta_rule/cpu/backward-inl.h"
#include "operators/delta_rule/cpu/decode-inl.h"
#include "operators/delta_rule/cpu/forward-inl.h"
#include "operators/delta_rule/cpu/workers.h"
#include "operators/delta_rule/implementation.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

std::int64_t forward_workspace(const Problem& x) { return workers_bytes<ForwardScratch>(x, Pieces(x).count); }

std::int64_t backward_workspace(const Problem& x) {
  Arena counter;
  PartialSums(x, counter);
  return counter.bytes() + workers_bytes<BackwardScratch>(x, x.N * x.H);
}

std::int64_t decode_workspace(const Problem& x) { return workers_bytes<DecodeScratch>(x, Pieces(x).count); }

Head head_of(const Problem& x, const Pieces& pieces, std::int64_t piece) {
  const std::int64_t head = piece / pieces.slices, column = piece % pieces.slices * pieces.width;
  return Head(x, head / x.HV, head % x.HV, column, std::min(pieces.width, x.V - column));
}

void forward(const Problem& x, const DeltaRuleForward& args, Workspace workspace) {
  const Pieces pieces(x);
  run_items<ForwardScratch>(x, pieces.count, workspace, [&](std::int64_t piece, ForwardScratch& scratch) {
    forward_head(head_of(x, pieces, piece), args, scratch);
  });
}

void backward(const Problem& x, const DeltaRuleBackward& args, Workspace workspace) {
  Arena arena(workspace.data);
  PartialSums sums(x, arena);
  sums.clear();
  const Workspace rest = {static_cast<char*>(workspace.data) + arena.bytes(), workspace.bytes - arena.bytes()};
  run_items<BackwardScratch>(x, x.N * x.H, rest, [&](std::int64_t item, BackwardScratch& scratch) {
    backward_key_head(x, item / x.H, item % x.H, args, scratch, sums);
  });
  sums.store(args);
}

void decode_step(const Problem& x, const DeltaRuleDecode& args, Workspace workspace) {
  const Pieces pieces(x);
  // Equal pieces, and the same ones in every step: a core finds its states in its own cache.
  run_workers<DecodeScratch>(x, pieces.count, workspace, [&](std::int64_t worker, std::int64_t workers, auto& scratch) {
    const std::int64_t end = pieces.count * (worker + 1) / workers;
    for (std::int64_t piece = pieces.count * worker / workers; piece < end; ++piece) {
      decode_head(head_of(x, pieces, piece), args, scratch);
    }
  });
}

Implementation implementation(const char* name, std::string (*refusal)(const Problem&)) {
  return {name, refusal, forward_workspace, backward_workspace, decode_workspace, forward, backward, decode_step};
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comba::delta_rule::cpu {
namespace {

#if HWY_TARGETS & HWY_AVX3
std::string needs_avx512(const Problem& x) {
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
  return has ? plain_decode_on_cpu(x) : "this processor has no AVX-512 (F, BW, CD, DQ, VL)";
}
#endif

#if HWY_TARGETS & HWY_AVX2
std::string needs_avx2(const Problem& x) {
  const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                   __builtin_cpu_supports("bmi2");
  return has ? plain_decode_on_cpu(x) : "this processor has no AVX2 with FMA and BMI";
}
#endif

}  // namespace

std::vector<Implementation> chunk_implementations() {
  std::vector<Implementation> list;
#if HWY_TARGETS & HWY_AVX3
  list.push_back(N_AVX3::implementation("cpu.avx512", needs_avx512));
#endif
#if HWY_TARGETS & HWY_AVX2
  list.push_back(N_AVX2::implementation("cpu.avx2", needs_avx2));
#endif
  // What the compiler's own flags allow: runs wherever this file does.
  list.push_back(
      HWY_NAMESPACE::implementation(HWY_STATIC_TARGET == HWY_NEON ? "cpu.neon" : "cpu.baseline", plain_decode_on_cpu));
  return list;
}

}  // namespace comba::delta_rule::cpu
#endif  // HWY_ONCE
