#include "training/step_clock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace comba::training {
namespace {

using namespace std::chrono_literals;

TEST(StepClock, TellsTheSecondsOfEachStepInTheirOrder) {
  StepClock clock(c10::kCPU);
  const auto begin = std::chrono::steady_clock::now();
  for (const auto pause : {20ms, 60ms}) {
    clock.start();
    std::this_thread::sleep_for(pause);
    clock.stop();
    std::this_thread::sleep_for(20ms);  // of no step
  }
  const std::chrono::duration<double> all = std::chrono::steady_clock::now() - begin;
  const double first = clock.take_seconds(), second = clock.take_seconds();
  EXPECT_GE(first, 0.02);
  EXPECT_GE(second, 0.06);
  EXPECT_LE(first + second, all.count() - 0.04);
}

}  // namespace
}  // namespace comba::training
