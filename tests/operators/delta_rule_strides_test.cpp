// Tensors laid out as callers lay them out: heads before tokens, batches further apart than 2^31 elements.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>

#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

/// A copy of a tensor with other strides, in memory of which only the pages in use exist.
class Spread {
 public:
  Spread(Buffer& dense, std::vector<std::int64_t> strides) : view_(dense.view()) {
    std::int64_t last = 0;
    for (int i = 0; i < view_.rank; ++i) last += (view_.sizes[i] - 1) * strides[i];
    bytes_ = (last + 1) * size_of(view_.dtype);
    view_.data = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (view_.data == MAP_FAILED) throw std::bad_alloc();
    std::copy(strides.begin(), strides.end(), view_.strides.begin());
    for_each_element([&](char* here, const char* there) { std::memcpy(here, there, size_of(view_.dtype)); }, dense);
  }
  ~Spread() { ::munmap(view_.data, bytes_); }
  Spread(const Spread&) = delete;
  Spread& operator=(const Spread&) = delete;

  const View& view() const { return view_; }

  bool same_bits(Buffer& dense) const {
    bool same = true;
    for_each_element([&](const char* here,
                         const char* there) { same = same && std::memcmp(here, there, size_of(view_.dtype)) == 0; },
                     dense);
    return same;
  }

 private:
  /// Calls body(element here, the same of `dense`).
  template <class Body>
  void for_each_element(const Body& body, Buffer& dense) const {
    const View other = dense.view();
    std::array<std::int64_t, View::kMaxRank> index{};
    for (std::int64_t i = 0; i < dense.count(); ++i) {
      std::int64_t rest = i, here = 0, there = 0;
      for (int axis = view_.rank - 1; axis >= 0; --axis) {
        index[axis] = rest % view_.sizes[axis];
        rest /= view_.sizes[axis];
        here += index[axis] * view_.strides[axis];
        there += index[axis] * other.strides[axis];
      }
      const auto size = static_cast<std::int64_t>(size_of(view_.dtype));
      body(static_cast<char*>(view_.data) + here * size, static_cast<char*>(other.data) + there * size);
    }
  }

  View view_;
  std::int64_t bytes_ = 0;
};

/// Memory for a call's scratch.
struct Scratch {
  explicit Scratch(std::int64_t bytes) : floats(bytes / 4 + 32) {}
  Workspace workspace() {
    const auto address = (reinterpret_cast<std::uintptr_t>(floats.data()) + 63) / 64 * 64;
    return {reinterpret_cast<void*>(address), static_cast<std::int64_t>(floats.size() * 4) - 64};
  }
  std::vector<float> floats;
};

constexpr std::int64_t kFar = (std::int64_t{1} << 31) + 5;

/// [B, T, heads, dim] as [heads, T, dim] of each batch, the batches far apart.
std::vector<std::int64_t> far_apart(const Buffer& dense) {
  const std::int64_t T = dense.sizes()[1];
  if (dense.sizes().size() == 3) return {kFar, 1, T};
  return {kFar, dense.sizes()[3], T * dense.sizes()[3], 1};
}

class Strides : public ::testing::TestWithParam<DType> {};

TEST_P(Strides, ChangeNoBits) {
  Description x;
  x.dtype = GetParam();
  x.B = 2;
  x.T = 70;
  x.H = 1;
  x.HV = 2;
  x.V = 20;
  Case c(x);
  Spread q(c.q, far_apart(c.q)), k(c.k, far_apart(c.k)), v(c.v, far_apart(c.v));
  Spread beta_logit(c.beta_logit, far_apart(c.beta_logit)), a(c.a, far_apart(c.a)), d_o(c.d_o, far_apart(c.d_o));
  const std::vector<std::int64_t> far_states = {kFar, 1000 + x.K * x.V, x.V, 1};
  Spread initial_state(c.initial_state, far_states), d_final_state(c.d_final_state, far_states);
  DeltaRuleInputs inputs = c.inputs();
  inputs.q = q.view();
  inputs.k = k.view();
  inputs.v = v.view();
  inputs.beta_logit = beta_logit.view();
  inputs.a = a.view();
  inputs.initial_state = initial_state.view();

  for (const delta_rule::Implementation& implementation : implementations_for(c)) {
    SCOPED_TRACE(implementation.name);
    Outputs out = forward(implementation, c);
    Gradients grad = backward(implementation, c);

    Buffer no_o(x.dtype, out.o.sizes()), no_state(DType::f32, out.final_state.sizes());
    Spread o(no_o, far_apart(no_o)), final_state(no_state, far_states);
    const DeltaRuleForward f = {c.options, inputs, o.view(), final_state.view()};
    const delta_rule::Problem forward_problem = delta_rule::check(f);
    Scratch forward_scratch(implementation.forward_workspace(forward_problem));
    implementation.forward(forward_problem, f, forward_scratch.workspace());
    EXPECT_TRUE(o.same_bits(out.o));
    EXPECT_TRUE(final_state.same_bits(out.final_state));

    Buffer none(x.dtype, grad.dk.sizes());
    Spread dq(none, far_apart(none)), dk(none, far_apart(none)), dv(no_o, far_apart(no_o));
    Spread d_initial_state(no_state, far_states);
    const DeltaRuleBackward b = {.options = c.options,
                                 .inputs = inputs,
                                 .do_ = d_o.view(),
                                 .d_final_state = d_final_state.view(),
                                 .dq = dq.view(),
                                 .dk = dk.view(),
                                 .dv = dv.view(),
                                 .d_initial_state = d_initial_state.view()};
    const delta_rule::Problem backward_problem = delta_rule::check(b);
    Scratch backward_scratch(implementation.backward_workspace(backward_problem));
    implementation.backward(backward_problem, b, backward_scratch.workspace());
    EXPECT_TRUE(dq.same_bits(grad.dq));
    EXPECT_TRUE(dk.same_bits(grad.dk));
    EXPECT_TRUE(dv.same_bits(grad.dv));
    EXPECT_TRUE(d_initial_state.same_bits(grad.d_initial_state));

    Outputs decoded = decode(implementation, c, x.T);
    inputs.initial_state = {};
    Spread state(c.initial_state, far_states);
    const DeltaRuleDecode d = {c.options, inputs, state.view(), o.view()};
    const delta_rule::Problem decode_problem = delta_rule::check(d);
    Scratch decode_scratch(implementation.decode_workspace(decode_problem));
    implementation.decode_step(decode_problem, d, decode_scratch.workspace());
    EXPECT_TRUE(o.same_bits(decoded.o));
    EXPECT_TRUE(state.same_bits(decoded.final_state));
    inputs.initial_state = initial_state.view();
  }
}

INSTANTIATE_TEST_SUITE_P(All, Strides, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace comba::test
