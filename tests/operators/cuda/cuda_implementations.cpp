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

}  // namespace comba::test
