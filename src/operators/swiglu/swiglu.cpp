#include "operators/swiglu/swiglu.h"

#include "operators/delta_rule/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "operators/swiglu/swiglu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "comba/parallel.h"
#include "operators/cpu/instruction_sets.h"
#include "operators/cpu/lanes-inl.h"

#ifndef COMBA_SWIGLU_KERNELS_
#define COMBA_SWIGLU_KERNELS_
namespace comba::cpu {

/// What is compiled once per instruction set. Elements [first, last) of the arguments.
struct SwigluKernels {
  void (*forward_range)(const SwigluForward& args, std::int64_t first, std::int64_t last);
  void (*backward_range)(const SwigluBackward& args, std::int64_t first, std::int64_t last);
};

}  // namespace comba::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace comba::cpu {
namespace HWY_NAMESPACE {

void swiglu_range(const SwigluForward& args, std::int64_t first, std::int64_t last) {
  for_each_vector(last - first, [&](std::int64_t offset, auto access) {
    const std::int64_t i = first + offset;
    const FloatVector gate = access.load(args.gate + i);
    access.store(hn::Mul(hn::Mul(gate, sigmoid(gate)), access.load(args.up + i)), args.y + i);
  });
}

void swiglu_backward_range(const SwigluBackward& args, std::int64_t first, std::int64_t last) {
  for_each_vector(last - first, [&](std::int64_t offset, auto access) {
    const std::int64_t i = first + offset;
    const FloatVector gate = access.load(args.gate + i);
    const FloatVector dy = access.load(args.dy + i);
    const FloatVector s = sigmoid(gate);
    access.store(hn::Mul(hn::Mul(dy, access.load(args.up + i)), silu_derivative(gate, s)), args.dgate + i);
    access.store(hn::Mul(dy, hn::Mul(gate, s)), args.dup + i);
  });
}

const SwigluKernels kSwigluKernels = {swiglu_range, swiglu_backward_range};

}  // namespace HWY_NAMESPACE
}  // namespace comba::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comba {
namespace {

const cpu::SwigluKernels& kernels() {
#if HWY_TARGETS & HWY_AVX3
  if (cpu::has_avx512()) return cpu::N_AVX3::kSwigluKernels;
#endif
#if HWY_TARGETS & HWY_AVX2
  if (cpu::has_avx2()) return cpu::N_AVX2::kSwigluKernels;
#endif
  return cpu::HWY_NAMESPACE::kSwigluKernels;
}

/// Calls body(first, last) for pieces of [0, count) that are worth a thread.
template <class Body>
void for_each_piece(std::int64_t count, const Body& body) {
  constexpr std::int64_t kPiece = 1 << 14;
  parallel_for((count + kPiece - 1) / kPiece,
               [&](std::int64_t begin, std::int64_t end) { body(begin * kPiece, std::min(count, end * kPiece)); });
}

}  // namespace

void swiglu_forward(const SwigluForward& args) {
  for_each_piece(args.count,
                 [&](std::int64_t first, std::int64_t last) { kernels().forward_range(args, first, last); });
}

void swiglu_backward(const SwigluBackward& args) {
  for_each_piece(args.count,
                 [&](std::int64_t first, std::int64_t last) { kernels().backward_range(args, first, last); });
}

}  // namespace comba
#endif  // HWY_ONCE
