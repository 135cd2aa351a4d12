// Tensors as layers have them: q, k and v as columns of one projection, outputs with heads before tokens.
#include <gtest/gtest.h>

#include <cstring>

#include "operators/delta_rule_case.h"

namespace comba::test {
namespace {

/// Columns [first, first + heads * dim) of a [B, T, columns] tensor as [B, T, heads, dim].
View columns_of(Buffer& x, std::int64_t first, std::int64_t heads, std::int64_t dim) {
  const std::int64_t B = x.sizes()[0], T = x.sizes()[1], columns = x.sizes()[2];
  View view(x.data() + first * size_of(x.dtype()), x.dtype(), {B, T, heads, dim});
  view.strides = {T * columns, columns, dim, 1};
  return view;
}

/// A [B, heads, T, dim] tensor as [B, T, heads, dim].
View heads_first(Buffer& x) {
  View view = x.view();
  std::swap(view.sizes[1], view.sizes[2]);
  std::swap(view.strides[1], view.strides[2]);
  return view;
}

/// Calls visit(offset, number) for each element of the view, in row-major order of its sizes.
template <class Visit>
void for_each_element(const View& view, const Visit& visit) {
  std::int64_t number = 0;
  for (std::int64_t i = 0; i < view.sizes[0]; ++i) {
    for (std::int64_t j = 0; j < view.sizes[1]; ++j) {
      for (std::int64_t k = 0; k < view.sizes[2]; ++k) {
        for (std::int64_t l = 0; l < view.sizes[3]; ++l) {
          visit(i * view.strides[0] + j * view.strides[1] + k * view.strides[2] + l * view.strides[3], number++);
        }
      }
    }
  }
}

void copy(const Buffer& from, const View& to) {
  const std::int64_t bytes = size_of(to.dtype);
  for_each_element(to, [&](std::int64_t offset, std::int64_t i) {
    std::memcpy(static_cast<std::uint8_t*>(to.data) + offset * bytes, from.data() + i * bytes, bytes);
  });
}

/// The view, into `whole`, has the values of `expected`; at most one message.
void expect_elements(const View& view, const Buffer& whole, const Buffer& expected) {
  const std::int64_t begin = (static_cast<const std::uint8_t*>(view.data) - whole.data()) / size_of(view.dtype);
  std::int64_t first = -1;
  for_each_element(view, [&](std::int64_t offset, std::int64_t i) {
    if (first < 0 && !(whole.at(begin + offset) == expected.at(i))) first = i;
  });
  EXPECT_EQ(first, -1) << "differs first at " << coordinate(first, expected.sizes());
}

TEST(CudaStrides, ChangeNoBits) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Description x;
    x.dtype = dtype;
    x.B = 2;
    x.T = 200;
    x.H = 2;
    x.HV = 4;
    x.K = 128;
    x.V = 64;
    x.final_gradient = false;
    Case c(x);
    const std::int64_t keys = x.H * x.K, columns = 2 * keys + x.HV * x.V;
    Buffer projection(dtype, {x.B, x.T, columns}), o(dtype, {x.B, x.HV, x.T, x.V});
    Buffer final_state(DType::f32, {x.B, x.HV, x.K, x.V});
    DeltaRuleInputs inputs = c.inputs();
    const View q = columns_of(projection, 0, x.H, x.K), k = columns_of(projection, keys, x.H, x.K);
    const View v = columns_of(projection, 2 * keys, x.HV, x.V);
    copy(c.q, q);
    copy(c.k, k);
    copy(c.v, v);
    inputs.q = q;
    inputs.k = k;
    inputs.v = v;
    const DeltaRuleForward args = {c.options, inputs, heads_first(o), final_state.view()};
    const delta_rule::Problem problem = delta_rule::check(args);
    for (const delta_rule::Implementation& implementation : implementations_for(c)) {
      SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
      ASSERT_EQ(implementation.refusal(problem), "");
      const Outputs dense = forward(implementation, c);
      std::vector<std::uint8_t> scratch(implementation.forward_workspace(problem) + 64);
      const auto address = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64;
      implementation.forward(problem, args,
                             {reinterpret_cast<void*>(address), static_cast<std::int64_t>(scratch.size()) - 64});
      expect_elements(heads_first(o), o, dense.o);
      EXPECT_TRUE(final_state.same_bits(dense.final_state));
      EXPECT_TRUE(o.guards_intact());
    }
  }
}

/// The same of backward, whose gradients of q, k and v are columns of one tensor too.
TEST(CudaStrides, ChangeNoBitsOfGradients) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    Description x;
    x.dtype = dtype;
    x.B = 2;
    x.T = 100;
    x.H = 2;
    x.HV = 4;
    x.K = 72;
    x.V = 40;
    Case c(x);
    const std::int64_t keys = x.H * x.K, columns = 2 * keys + x.HV * x.V;
    Buffer projection(dtype, {x.B, x.T, columns}), d_projection(dtype, {x.B, x.T, columns});
    Buffer d_o(dtype, {x.B, x.HV, x.T, x.V});
    Gradients gradients = empty_gradients(c);
    DeltaRuleBackward args = backward_args(c, gradients);
    const auto cut = [&](Buffer& from, std::int64_t first, std::int64_t heads, std::int64_t dim) {
      return columns_of(from, first, heads, dim);
    };
    copy(c.q, cut(projection, 0, x.H, x.K));
    copy(c.k, cut(projection, keys, x.H, x.K));
    copy(c.v, cut(projection, 2 * keys, x.HV, x.V));
    copy(c.d_o, heads_first(d_o));
    args.inputs.q = cut(projection, 0, x.H, x.K);
    args.inputs.k = cut(projection, keys, x.H, x.K);
    args.inputs.v = cut(projection, 2 * keys, x.HV, x.V);
    args.do_ = heads_first(d_o);
    args.dq = cut(d_projection, 0, x.H, x.K);
    args.dk = cut(d_projection, keys, x.H, x.K);
    args.dv = cut(d_projection, 2 * keys, x.HV, x.V);
    const delta_rule::Problem problem = delta_rule::check(args);
    for (const delta_rule::Implementation& implementation : backward_implementations_for(c)) {
      SCOPED_TRACE(std::string(implementation.name) + "; " + describe(x));
      if (!implementation.refusal(problem).empty()) continue;
      const Gradients dense = backward(implementation, c);
      std::vector<std::uint8_t> scratch(implementation.backward_workspace(problem) + 64);
      const auto address = (reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64;
      implementation.backward(problem, args,
                              {reinterpret_cast<void*>(address), static_cast<std::int64_t>(scratch.size()) - 64});
      for (const auto& [view, expected] : {std::pair{args.dq, &dense.dq}, {args.dk, &dense.dk}, {args.dv, &dense.dv}}) {
        expect_elements(view, d_projection, *expected);
      }
      EXPECT_TRUE(gradients.da.same_bits(dense.da));
      EXPECT_TRUE(gradients.d_initial_state.same_bits(dense.d_initial_state));
      EXPECT_TRUE(d_projection.guards_intact());
    }
  }
}

}  // namespace
}  // namespace comba::test
