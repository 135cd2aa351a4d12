// SwiGLU on the GPU against its formula in double.
#include "operators/swiglu/cuda/swiglu.h"

#include "operators/cuda/device_rows.h"

namespace comba::test {
namespace {

void run_and_check(DType dtype, const Layout& columns, const Layout& dense) {
  const std::int64_t rows = columns.outer, dim = columns.dim;
  SCOPED_TRACE(std::string(name_of(dtype)) + ", " + std::to_string(rows) + " x " + std::to_string(dim) + " of " +
               std::to_string(columns.width));
  const DeviceRows gate(dtype, columns, 1, 3), up(dtype, columns, 2), dy(dtype, dense, 3);
  DeviceRows y(dtype, dense), dgate(dtype, columns), dup(dtype, columns);
  cuda::swiglu_forward(
      {.rows = rows, .dim = dim, .dtype = dtype, .gate = gate.const_rows(), .up = up.const_rows(), .y = y.rows()});
  cuda::swiglu_backward({.rows = rows,
                         .dim = dim,
                         .dtype = dtype,
                         .dy = dy.const_rows(),
                         .gate = gate.const_rows(),
                         .up = up.const_rows(),
                         .dgate = dgate.rows(),
                         .dup = dup.rows()});
  for (DeviceRows* result : {&y, &dgate, &dup}) result->fetch();
  std::vector<double> ys, dgates, dups;
  for (std::int64_t i = 0; i < gate.count(); ++i) {
    const double g = gate.at(i), u = up.at(i), d = dy.at(i);
    ys.push_back(g * sigmoid(g) * u);
    dgates.push_back(d * u * silu_derivative(g));
    dups.push_back(d * g * sigmoid(g));
  }
  EXPECT_TRUE(close(y.values(), ys, y.sizes(), rounding_tolerance(dtype), "y", ""));
  EXPECT_TRUE(close(dgate.values(), dgates, y.sizes(), rounding_tolerance(dtype), "dgate", ""));
  EXPECT_TRUE(close(dup.values(), dups, y.sizes(), rounding_tolerance(dtype), "dup", ""));
}

TEST(CudaSwiglu, EveryDtypeAndDim) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t dim : {1, 8, 37, 256, 2816}) {
      for (const std::int64_t rows : {1, 130}) {
        run_and_check(dtype, Layout::dense(rows, dim), Layout::dense(rows, dim));
        run_and_check(dtype, Layout::columns(rows, 1, dim, dim % 8 == 0 ? 24 : 3), Layout::dense(rows, dim));
      }
    }
  }
}

TEST(CudaSwiglu, HalvesOfOneTensor) {
  constexpr std::int64_t kRows = 100, kDim = 128;
  const DeviceRows joined(DType::bf16, Layout::dense(kRows, 2 * kDim), 1),
      dy(DType::bf16, Layout::dense(kRows, kDim), 2);
  DeviceRows d_joined(DType::bf16, Layout::dense(kRows, 2 * kDim));
  const auto half = [&](const DeviceRows& x, int which) {
    return cuda::Rows{static_cast<char*>(x.data()) + which * kDim * 2, 1, 2 * kDim, kDim};
  };
  const auto const_half = [&](const DeviceRows& x, int which) {
    return cuda::ConstRows{static_cast<char*>(x.data()) + which * kDim * 2, 1, 2 * kDim, kDim};
  };
  cuda::swiglu_backward({.rows = kRows,
                         .dim = kDim,
                         .dtype = DType::bf16,
                         .dy = dy.const_rows(),
                         .gate = const_half(joined, 0),
                         .up = const_half(joined, 1),
                         .dgate = half(d_joined, 0),
                         .dup = half(d_joined, 1)});
  d_joined.fetch();
  std::vector<double> expected(d_joined.count());
  for (std::int64_t i = 0; i < kRows * kDim; ++i) {
    const std::int64_t at = i / kDim * 2 * kDim + i % kDim;
    const double g = joined.at(at), d = dy.at(i);
    expected[at] = d * joined.at(at + kDim) * silu_derivative(g);
    expected[at + kDim] = d * g * sigmoid(g);
  }
  EXPECT_TRUE(close(d_joined.values(), expected, d_joined.sizes(), rounding_tolerance(DType::bf16), "gradient", ""));
}

}  // namespace
}  // namespace comba::test
