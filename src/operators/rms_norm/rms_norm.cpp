#include "operators/rms_norm/rms_norm.h"

#include "operators/delta_rule/cpu/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "operators/rms_norm/rms_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "comba/parallel.h"
#include "operators/cpu/instruction_sets.h"
#include "operators/cpu/lanes-inl.h"

#ifndef COMBA_RMS_NORM_KERNELS_
#define COMBA_RMS_NORM_KERNELS_
namespace comba::cpu {

/// What is compiled once per instruction set. Rows [first, last) of the arguments.
struct RmsNormKernels {
  void (*forward_rows)(const RmsNormForward& args, std::int64_t first, std::int64_t last);
  void (*backward_rows)(const RmsNormBackward& args, std::int64_t first, std::int64_t last, float* dweight);
  void (*sum_rows)(const float* rows, std::int64_t num_rows, std::int64_t dim, float* sum);
};

}  // namespace comba::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace comba::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE FloatVector opening(GateFunction function, FloatVector gate, FloatVector s) {
  return function == GateFunction::sigmoid ? s : hn::Mul(gate, s);
}

HWY_INLINE FloatVector opening_derivative(GateFunction function, FloatVector gate, FloatVector s) {
  const FloatVector one = hn::Set(kFloats, 1.0f);
  return function == GateFunction::sigmoid ? hn::Mul(s, hn::Sub(one, s)) : silu_derivative(gate, s);
}

float inverse_rms(const float* x, std::int64_t dim, float eps) {
  FloatVector squares = hn::Zero(kFloats);
  for_each_vector(dim, [&](std::int64_t i, auto access) {
    const FloatVector value = access.load(x + i);
    squares = hn::MulAdd(value, value, squares);
  });
  return 1 / std::sqrt(sum_of_lanes(squares) / static_cast<float>(dim) + eps);
}

void rms_norm_rows(const RmsNormForward& args, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    const std::int64_t start = row * args.dim;
    const float* x = args.x + start;
    const float r = inverse_rms(x, args.dim, args.eps);
    args.inverse_rms[row] = r;
    for_each_vector(args.dim, [&](std::int64_t i, auto access) {
      FloatVector y = hn::Mul(hn::Mul(access.load(x + i), hn::Set(kFloats, r)), access.load(args.weight + i));
      if (args.gate != nullptr) {
        const FloatVector gate = access.load(args.gate + start + i);
        y = hn::Mul(y, opening(args.function, gate, sigmoid(gate)));
      }
      access.store(y, args.y + start + i);
    });
  }
}

/// Writes d(weight x r) into dx, dgate, and adds to dweight. Returns sum_i d(x r)_i (x r)_i.
float through_gate_and_weight(const RmsNormBackward& args, std::int64_t row, float* dweight) {
  const std::int64_t start = row * args.dim;
  const FloatVector r = hn::Set(kFloats, args.inverse_rms[row]);
  FloatVector along = hn::Zero(kFloats);
  for_each_vector(args.dim, [&](std::int64_t i, auto access) {
    const FloatVector normalised = hn::Mul(access.load(args.x + start + i), r);
    const FloatVector weight = access.load(args.weight + i);
    FloatVector d_scaled = access.load(args.dy + start + i);
    if (args.gate != nullptr) {
      const FloatVector gate = access.load(args.gate + start + i);
      const FloatVector s = sigmoid(gate);
      const FloatVector d_opening = hn::Mul(d_scaled, hn::Mul(weight, normalised));
      access.store(hn::Mul(d_opening, opening_derivative(args.function, gate, s)), args.dgate + start + i);
      d_scaled = hn::Mul(d_scaled, opening(args.function, gate, s));
    }
    access.store(hn::MulAdd(d_scaled, normalised, access.load(dweight + i)), dweight + i);
    const FloatVector d_normalised = hn::Mul(d_scaled, weight);
    access.store(d_normalised, args.dx + start + i);
    along = hn::MulAdd(d_normalised, normalised, along);
  });
  return sum_of_lanes(along);
}

void rms_norm_backward_rows(const RmsNormBackward& args, std::int64_t first, std::int64_t last, float* dweight) {
  std::fill_n(dweight, args.dim, 0.0f);
  for (std::int64_t row = first; row < last; ++row) {
    const float r = args.inverse_rms[row];
    const float along = through_gate_and_weight(args, row, dweight);
    // dx = r (dn - n mean(n . dn)), n = x r
    const FloatVector pull = hn::Set(kFloats, along / static_cast<float>(args.dim) * r);
    const float* x = args.x + row * args.dim;
    float* dx = args.dx + row * args.dim;
    for_each_vector(args.dim, [&](std::int64_t i, auto access) {
      const FloatVector rest = hn::NegMulAdd(pull, access.load(x + i), access.load(dx + i));
      access.store(hn::Mul(rest, hn::Set(kFloats, r)), dx + i);
    });
  }
}

void sum_rows(const float* rows, std::int64_t num_rows, std::int64_t dim, float* sum) {
  std::fill_n(sum, dim, 0.0f);
  for (std::int64_t row = 0; row < num_rows; ++row) {
    for_each_vector(dim, [&](std::int64_t i, auto access) {
      access.store(hn::Add(access.load(sum + i), access.load(rows + row * dim + i)), sum + i);
    });
  }
}

const RmsNormKernels kRmsNormKernels = {rms_norm_rows, rms_norm_backward_rows, sum_rows};

}  // namespace HWY_NAMESPACE
}  // namespace comba::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace comba {
namespace {

constexpr std::int64_t kRowsPerSlab = 64;

const cpu::RmsNormKernels& kernels() {
#if HWY_TARGETS & HWY_AVX3
  if (cpu::has_avx512()) return cpu::N_AVX3::kRmsNormKernels;
#endif
#if HWY_TARGETS & HWY_AVX2
  if (cpu::has_avx2()) return cpu::N_AVX2::kRmsNormKernels;
#endif
  return cpu::HWY_NAMESPACE::kRmsNormKernels;
}

/// Calls body(slab, first row, last row) for every slab.
template <class Body>
void for_each_slab(std::int64_t rows, const Body& body) {
  parallel_for(rms_norm_num_slabs(rows), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t slab = begin; slab < end; ++slab) {
      body(slab, slab * kRowsPerSlab, std::min(rows, (slab + 1) * kRowsPerSlab));
    }
  });
}

}  // namespace

std::int64_t rms_norm_num_slabs(std::int64_t rows) { return (rows + kRowsPerSlab - 1) / kRowsPerSlab; }

void rms_norm_forward(const RmsNormForward& args) {
  for_each_slab(args.rows, [&](std::int64_t, std::int64_t first, std::int64_t last) {
    kernels().forward_rows(args, first, last);
  });
}

void rms_norm_backward(const RmsNormBackward& args) {
  for_each_slab(args.rows, [&](std::int64_t slab, std::int64_t first, std::int64_t last) {
    kernels().backward_rows(args, first, last, args.partial_sums + slab * args.dim);
  });
  kernels().sum_rows(args.partial_sums, rms_norm_num_slabs(args.rows), args.dim, args.dweight);
}

}  // namespace comba
#endif  // HWY_ONCE
