#include <gtest/gtest.h>

#include "operators/cuda/through_device.h"
#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

/// Without a GPU every test of this program is skipped, by name.
class NeedsGpu : public ::testing::EmptyTestEventListener {
 public:
  void OnTestStart(const ::testing::TestInfo&) override {
    if (tested_implementations().empty()) GTEST_SKIP() << "no GPU is visible";
  }
};

[[maybe_unused]] const bool kNeedsGpu = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new NeedsGpu);
  return true;
}();

}  // namespace

std::vector<delta_rule::Implementation> tested_implementations() { return implementations_through_device(); }

/// Kernels for 16 bits round the operands of their products. Then a sum over all tokens may cancel to any part of its
/// terms, whose rounding remains: the usual tolerance is for the RMS of many heads, and a few of them may miss it.
double gradient_tolerance(const std::string& tensor, const Buffer& x, const Description& description) {
  constexpr std::int64_t kManyHeads = 24;
  const double usual = tolerance(tensor, description.dtype);
  if (description.dtype == DType::f32) return usual;
  const bool of_heads = tensor == "db" || tensor == "dd" || tensor == "dA_log" || tensor == "ddt_bias";
  if (of_heads && x.given() && x.count() < kManyHeads) return 16 * usual;
  const bool decay = tensor == "dg" || tensor == "da" || tensor == "dA_log" || tensor == "ddt_bias";
  return decay && description.log_decay >= 5 ? 0.02 : usual;
}

}  // namespace comba::test
