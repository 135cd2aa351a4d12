#include "base/message.h"

#include <gtest/gtest.h>

namespace comba {
namespace {

TEST(Message, DescribesSizesAndDtype) {
  float data[1] = {};
  EXPECT_EQ(concat(describe(View(data, DType::bf16, {2, 512, 8, 320}))), "[2, 512, 8, 320] bf16");
  EXPECT_EQ(concat(describe(ConstView())), "absent");
}

TEST(Message, RequireThrowsOnlyWhenBroken) {
  EXPECT_NO_THROW(require(true, ErrorCode::io, "never seen"));
  try {
    require(false, ErrorCode::io, "[file] size must be ", 3, "; got ", 4);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_STREQ(error.what(), "[file] size must be 3; got 4");
  }
}

}  // namespace
}  // namespace comba
