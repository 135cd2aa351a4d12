// What the forward call leaves for the backward call: the same bits of everything, with less work.
#include <gtest/gtest.h>

#include <string>

#include "operators/cuda/device_backward.h"
#include "operators/cuda/device_forward.h"

namespace comba::test {
namespace {

/// Returns whether the implementation saves anything.
bool check(const char* implementation, Case& c) {
  DeviceForward plain(implementation, c), saving(implementation, c);
  const std::int64_t bytes = saving.saved_bytes();
  if (bytes == 0) return false;
  const DeviceMemory saved(bytes);
  saving.save_to(saved);
  for (DeviceForward* one : {&plain, &saving}) {
    one->poison();
    one->run();
  }
  const Outputs &expected = plain.fetch(), &outputs = saving.fetch();
  EXPECT_TRUE(outputs.o.same_bits(expected.o));
  EXPECT_TRUE(outputs.final_state.same_bits(expected.final_state));

  DeviceBackward alone(implementation, c), after(implementation, c);
  after.use(saved, bytes);
  for (DeviceBackward* one : {&alone, &after}) {
    one->poison();
    one->run();
  }
  EXPECT_TRUE(same_bits(after.fetch(), alone.fetch()));
  after.poison();  // what was saved serves more than one call
  after.run();
  EXPECT_TRUE(same_bits(after.fetch(), alone.fetch()));
  return true;
}

TEST(CudaSavedStates, ChangeNoBits) {
  int tested = 0;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const std::int64_t K : {64, 96, 128, 256}) {
      for (const std::int64_t V : {40, 128, 192, 256}) {
        for (const std::int64_t rows : {1, 70}) {  // 70 rows of 2 heads: the wide slices
          if (rows > 1 && (dtype == DType::f16 || K == 96)) continue;
          Description x;
          x.dtype = dtype;
          x.B = rows;
          x.T = rows > 1 ? 130 : 400;
          x.H = 1;
          x.HV = 2;
          x.K = K;
          x.V = V;
          x.final_gradient = K == 64;
          Case c(x);
          for (const char* implementation : device_implementations_for(c)) {
            SCOPED_TRACE(std::string(implementation) + "; " + describe(x));
            tested += check(implementation, c);
          }
        }
      }
    }
  }
  EXPECT_GT(tested, 0);
}

TEST(CudaSavedStates, OfPackedSequences) {
  for (const std::int64_t K : {128, 256}) {
    Description x;
    x.dtype = DType::bf16;
    x.T = 500;
    x.H = 2;
    x.HV = 2;
    x.K = K;
    x.V = 128;
    x.cu_seqlens = {0, 1, 1, 65, 300, 500};
    Case c(x);
    for (const char* implementation : device_implementations_for(c)) check(implementation, c);
  }
}

/// With a full p nothing is saved; memory that is given all the same is not touched.
TEST(CudaSavedStates, NothingForAFullP) {
  Description x;
  x.dtype = DType::bf16;
  x.feedback = Feedback::per_key_head;
  x.K = x.V = 64;
  Case c(x);
  for (const char* implementation : device_implementations_for(c)) {
    EXPECT_EQ(DeviceForward(implementation, c).saved_bytes(), 0) << implementation;
  }
}

}  // namespace
}  // namespace comba::test
