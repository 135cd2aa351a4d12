// Decode on Hopper gives the bits of the kernel for any GPU, whatever the call asks for.
#include <gtest/gtest.h>

#include <optional>

#include "operators/cuda/device_memory.h"
#include "operators/delta_rule/run.h"
#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

using delta_rule::Implementation;

/// How the states of a call lie in memory.
enum class Layout { contiguous, heads_in_rows };  ///< [N, HV, K, V], or [N, K, HV, V + 8]

/// A call with more states than rows: every fifth row is skipped, the others accept 0, 1, ... T tokens in turns.
struct Call {
  Case c;
  Layout layout;
  Buffer states, indices, num_accepted, o;

  Call(const Description& x, DType state_dtype, Layout layout = Layout::contiguous)
      : c(x),
        layout(layout),
        states(state_dtype, layout == Layout::contiguous ? std::vector<std::int64_t>{x.B + 2, x.HV, x.K, x.V}
                                                         : std::vector<std::int64_t>{x.B + 2, x.K, x.HV, x.V + 8}),
        indices(DType::i32, {x.B}),
        num_accepted(DType::i32, {x.B}),
        o(x.dtype, {x.B, x.T, x.HV, x.V}) {
    std::mt19937_64 random(x.seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (std::int64_t i = 0; i < states.count(); ++i) states.set(i, uniform(random));
    for (std::int64_t b = 0; b < x.B; ++b) {
      const std::int64_t skipped = b % 10 == 3 ? -1 : x.B + 2;
      indices.set(b, b % 5 == 3 ? skipped : x.B + 1 - b);
      num_accepted.set(b, x.T - b % (x.T + 1));
    }
    o.fill(std::vector<double>(o.count(), 7));
  }

  DeltaRuleDecode args(bool serves = true) {
    const Description& x = c.description;
    DeltaRuleDecode args;
    args.options = c.options;
    args.inputs = c.inputs();
    args.inputs.initial_state = {};
    args.state = states.view();
    if (layout == Layout::heads_in_rows) {
      const std::int64_t row = x.HV * (x.V + 8);
      args.state.sizes = {x.B + 2, x.HV, x.K, x.V};
      args.state.strides = {x.K * row, x.V + 8, row, 1};
    }
    args.o = o.view();
    if (serves) args.state_indices = indices.view(), args.num_accepted = num_accepted.view();
    return args;
  }
};

std::optional<Implementation> named(const std::string& name) {
  for (const Implementation& implementation : tested_implementations()) {
    if (implementation.name == name) return implementation;
  }
  return std::nullopt;
}

/// Both kernels leave the same outputs and states.
void expect_same_bits(const Call& call) {
  SCOPED_TRACE(describe(call.c.description) + ", states in " + name_of(call.states.dtype()));
  Call hopper = call, generic = call;
  for (auto [name, one] : {std::pair{"cuda.sm90", &hopper}, {"cuda.generic", &generic}}) {
    const DeltaRuleDecode args = one->args();
    const delta_rule::Problem problem = delta_rule::check(args);
    const std::string refusal = named(name)->refusal(problem);
    if (std::string(name) == "cuda.sm90" && refusal.find("Hopper") != std::string::npos) GTEST_SKIP() << refusal;
    ASSERT_EQ(refusal, "") << name;
    named(name)->decode_step(problem, args, {});
  }
  EXPECT_TRUE(hopper.o.same_bits(generic.o)) << "outputs";
  EXPECT_TRUE(hopper.states.same_bits(generic.states)) << "states";
  EXPECT_FALSE(hopper.states.same_bits(call.states)) << "no state was written";
}

/// With fewer the call is left to the other kernel.
std::int64_t fewest_tokens(DType state) { return state == DType::f32 ? 2 : 1; }

Description few_rows(DType dtype) {
  Description x;
  x.dtype = dtype;
  x.B = 7, x.T = 3, x.H = 2, x.HV = 4, x.K = 128, x.V = 128;
  return x;
}

TEST(CudaDecode, EveryShapeHasTheBitsOfTheGenericKernel) {
  for (const DType state : {DType::f32, DType::bf16}) {
    for (const std::int64_t K : {8, 64, 100, 128, 192, 256}) {
      for (const std::int64_t V : {8, 72, 256}) {
        Description x = few_rows(DType::bf16);
        x.K = K, x.V = V;
        expect_same_bits(Call(x, state));
        expect_same_bits(Call(x, state, Layout::heads_in_rows));
      }
    }
  }
}

TEST(CudaDecode, EveryOptionHasTheBitsOfTheGenericKernel) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const DType state : {DType::f32, DType::bf16}) {
      for (std::uint64_t seed = 0; seed < 40; ++seed) {
        Description x = random_description(seed);
        x.dtype = dtype, x.cu_seqlens = {}, x.initial_state = false;
        x.B = 6, x.T = fewest_tokens(state) + static_cast<std::int64_t>(seed % 8), x.V = (x.V + 7) / 8 * 8;
        expect_same_bits(Call(x, state));
      }
    }
  }
}

/// More pieces than all blocks have stages for.
TEST(CudaDecode, ManyRowsHaveTheBitsOfTheGenericKernel) {
  for (const DType state : {DType::f32, DType::bf16}) {
    for (const auto& [K, V] : {std::pair<std::int64_t, std::int64_t>{64, 64}, {128, 64}, {256, 32}}) {
      for (const std::int64_t T : {fewest_tokens(state), std::int64_t{4}}) {
        Description x = few_rows(DType::bf16);
        x.B = 75, x.H = 16, x.HV = 32, x.K = K, x.V = V, x.T = T, x.initial_state = false;
        expect_same_bits(Call(x, state));
      }
    }
  }
}

/// Calls that follow each other without a pause, each with the states of the one before: one wrong bit stays.
TEST(CudaDecode, TwoHundredCallsInARowHaveTheBitsOfTheGenericKernel) {
  for (const DType state : {DType::f32, DType::bf16}) {
    Description x = few_rows(DType::bf16);
    x.B = 75, x.H = x.HV = 32, x.V = 64, x.T = fewest_tokens(state), x.log_decay = 1e-4, x.initial_state = false;
    std::vector<Call> results;
    for (const char* name : {"cuda.sm90", "cuda.generic"}) {
      results.emplace_back(x, state);
      DeltaRuleDecode args = results.back().args(false);
      args.state.sizes[0] = x.B;
      args.execution = {DeviceType::cuda, nullptr};
      DeviceTensors tensors;
      tensors.move(args.inputs);
      tensors.move(args.state);
      tensors.move(args.o);
      const delta_rule::Problem problem = delta_rule::check(args);
      for (const Implementation& one : delta_rule::cuda::implementations()) {
        if (std::string(one.name) != name) continue;
        const std::string refusal = one.refusal(problem);
        if (refusal.find("Hopper") != std::string::npos) GTEST_SKIP() << refusal;
        ASSERT_EQ(refusal, "") << name;
        for (int i = 0; i < 200; ++i) one.decode_step(problem, args, {});
      }
      tensors.fetch();
    }
    EXPECT_TRUE(results[0].o.same_bits(results[1].o));
    EXPECT_TRUE(results[0].states.same_bits(results[1].states));
    EXPECT_FALSE(results[0].states.same_bits(Call(x, state).states)) << "no state was written";
  }
}

}  // namespace
}  // namespace comba::test
