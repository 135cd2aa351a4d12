// Softmax cross entropy on the GPU against its formula in double.
#include "operators/cross_entropy/cuda/cross_entropy.h"

#include "operators/cuda/device_rows.h"

namespace comba::test {
namespace {

constexpr std::int64_t kRows = 9;
constexpr float kScale = 0.25f;

/// Row 3 is ignored, the target of row 5 is no column.
std::vector<std::int64_t> targets_of(std::int64_t columns) {
  std::vector<std::int64_t> targets;
  for (std::int64_t row = 0; row < kRows; ++row) targets.push_back(row * 7919 % columns);
  targets[3] = cuda::kIgnoredTarget;
  targets[5] = columns;
  targets[8] = columns - 1;
  return targets;
}

struct CrossEntropyCall {
  CrossEntropyCall(DType dtype, std::int64_t columns)
      : columns(columns),
        width((columns + 7) / 8 * 8 + 8),
        logits(dtype, Layout::dense(kRows, width), 1, 4),
        losses(DType::f32, Layout::dense(1, kRows)),
        scale(4),
        targets(kRows * 8) {
    const auto values = targets_of(columns);
    check_cuda(cudaMemcpy(targets.data(), values.data(), kRows * 8, cudaMemcpyHostToDevice), "cudaMemcpy");
    check_cuda(cudaMemcpy(scale.data(), &kScale, 4, cudaMemcpyHostToDevice), "cudaMemcpy");
    before = logits.values();
  }

  void run(bool with_gradient) {
    cuda::cross_entropy({.rows = kRows,
                         .columns = columns,
                         .row_stride = width,
                         .dtype = logits.dtype(),
                         .logits = logits.data(),
                         .targets = static_cast<const std::int64_t*>(targets.data()),
                         .scale = with_gradient ? static_cast<const float*>(scale.data()) : nullptr,
                         .losses = static_cast<float*>(losses.data())});
    logits.fetch();
    losses.fetch();
  }

  std::int64_t columns, width;
  DeviceRows logits, losses;
  DeviceMemory scale, targets;
  std::vector<double> before;
};

void run_and_check(DType dtype, std::int64_t columns) {
  SCOPED_TRACE(std::string(name_of(dtype)) + ", " + std::to_string(columns) + " columns");
  CrossEntropyCall call(dtype, columns);
  call.run(/*with_gradient=*/true);
  const std::vector<std::int64_t> targets = targets_of(columns);
  const double nan = std::nan("");
  std::vector<double> losses(kRows), gradients, computed;
  for (std::int64_t row = 0; row < kRows; ++row) {
    const double* x = call.before.data() + row * call.width;
    double max = -1e300, sum = 0;
    for (std::int64_t i = 0; i < columns; ++i) max = std::max(max, x[i]);
    for (std::int64_t i = 0; i < columns; ++i) sum += std::exp(x[i] - max);
    const std::int64_t target = targets[row];
    const bool is_ignored = target == cuda::kIgnoredTarget, is_wrong = target >= columns;
    losses[row] = is_ignored ? 0 : is_wrong ? nan : std::log(sum) + max - x[target];
    for (std::int64_t i = 0; i < columns; ++i) {
      const double gradient = kScale * (std::exp(x[i] - max) / sum - (i == target ? 1 : 0));
      gradients.push_back(is_ignored ? 0 : is_wrong ? nan : gradient);
      computed.push_back(call.logits.at(row * call.width + i));
    }
  }
  // Beside 1: the error of a row's largest exponential is absolute, and its loss may be 0.
  std::vector<double> shifted = call.losses.values();
  for (double& value : shifted) value += 1;
  for (double& value : losses) value += 1;
  EXPECT_TRUE(close(shifted, losses, {kRows}, 2e-6, "loss + 1", ""));
  EXPECT_TRUE(close(computed, gradients, {kRows, columns}, rounding_tolerance(dtype), "gradient", ""));
}

TEST(CudaCrossEntropy, EveryDtypeAndSize) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::int64_t columns : {1, 7, 259, 1024, 1025, 8192, 32000, 32768, 50257, 151936}) {
      run_and_check(dtype, columns);
    }
  }
}

TEST(CudaCrossEntropy, WithoutAScaleTheLogitsStay) {
  CrossEntropyCall call(DType::bf16, 1000);
  call.run(/*with_gradient=*/false);
  EXPECT_EQ(call.logits.values(), call.before);
  CrossEntropyCall with(DType::bf16, 1000);
  with.run(/*with_gradient=*/true);
  EXPECT_TRUE(call.losses.same_bits(with.losses));
}

TEST(CudaCrossEntropy, TheSameBitsEachTime) {
  CrossEntropyCall first(DType::bf16, 32000);
  first.run(true);
  for (int repeat = 0; repeat < 20; ++repeat) {
    CrossEntropyCall again(DType::bf16, 32000);
    again.run(true);
    ASSERT_TRUE(again.logits.same_bits(first.logits) && again.losses.same_bits(first.losses));
  }
}

}  // namespace
}  // namespace comba::test
