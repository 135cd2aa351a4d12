#include "operators/exact_backward.h"

#include "comba/parallel.h"
#include "operators/exact_forward.h"

namespace comba::test {
namespace {

using reference::Tensors;
using reference::Vector;

/// Adds the gradients of one head's tokens to a [B, T, heads, dim] or [B, T, heads] tensor in double.
void add_tokens(const Vector& from, const Buffer& like, std::int64_t first_row, std::int64_t head, Vector& to) {
  if (!like.given()) return;
  const std::int64_t heads = like.sizes()[2], dim = like.sizes().size() == 4 ? like.sizes()[3] : 1;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::int64_t token = static_cast<std::int64_t>(i) / dim, column = static_cast<std::int64_t>(i) % dim;
    to[((first_row + token) * heads + head) * dim + column] += from[i];
  }
}

void add_of_head(const Vector& from, std::int64_t head, Vector& to) {
  if (!from.empty()) to[head] += from[0];
}

/// The gradients of d_o and d_final_state that belong to one head.
Tensors backward_of_head(const Case& c, const delta_rule::Problem& x, std::int64_t n, std::int64_t head) {
  const delta_rule::Problem::Sequence s = x.sequence(n);
  Vector d_o, d_final_state;
  for (std::int64_t row = s.batch * x.T + s.begin; row < s.batch * x.T + s.end; ++row) {
    for (std::int64_t v = 0; v < x.V; ++v) d_o.push_back(c.d_o.at((row * x.HV + head) * x.V + v));
  }
  for (std::int64_t i = 0; c.d_final_state.given() && i < x.K * x.V; ++i) {
    d_final_state.push_back(c.d_final_state.at((n * x.HV + head) * x.K * x.V + i));
  }
  return one_head(c, x, n, head).backward(d_o, d_final_state);
}

}  // namespace

Gradients exact_backward(Case& c) {
  const delta_rule::Problem x = delta_rule::check("exact_backward", c.options, c.inputs());
  const auto zeros = [](const Buffer& like) { return Vector(like.given() ? like.count() : 0); };
  Tensors sum{zeros(c.q),
              zeros(c.k),
              zeros(c.v),
              zeros(c.p),
              zeros(c.b),
              zeros(c.d),
              zeros(c.beta),
              zeros(c.beta_logit),
              zeros(c.g),
              zeros(c.a),
              zeros(c.A_log),
              zeros(c.dt_bias),
              zeros(c.initial_state)};
  std::vector<Tensors> parts(x.N * x.HV);
  parallel_for(x.N * x.HV, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) parts[i] = backward_of_head(c, x, i / x.HV, i % x.HV);
  });
  for (std::int64_t i = 0; i < x.N * x.HV; ++i) {
    const Tensors& one = parts[i];
    const std::int64_t n = i / x.HV, head = i % x.HV, key = head / x.group(), state = x.K * x.V;
    const delta_rule::Problem::Sequence s = x.sequence(n);
    const std::int64_t row = s.batch * x.T + s.begin;
    add_tokens(one.q, c.q, row, key, sum.q);
    add_tokens(one.k, c.k, row, key, sum.k);
    add_tokens(one.v, c.v, row, head, sum.v);
    add_tokens(one.p, c.p, row, x.P_heads == x.HV ? head : key, sum.p);
    add_tokens(one.beta, c.beta, row, head, sum.beta);
    add_tokens(one.beta_logit, c.beta_logit, row, head, sum.beta_logit);
    add_tokens(one.g, c.g, row, head, sum.g);
    add_tokens(one.a, c.a, row, head, sum.a);
    add_of_head(one.b, key, sum.b);
    add_of_head(one.d, key, sum.d);
    add_of_head(one.A_log, head, sum.A_log);
    add_of_head(one.dt_bias, head, sum.dt_bias);
    std::copy(one.initial_state.begin(), one.initial_state.end(),
              sum.initial_state.begin() + (c.initial_state.given() ? i * state : 0));
  }
  const auto buffer = [](const Buffer& like, const Vector& values) {
    Buffer out = like.given() ? Buffer(DType::f32, like.sizes()) : Buffer();
    if (like.given()) out.fill(values);
    return out;
  };
  return {buffer(c.q, sum.q),
          buffer(c.k, sum.k),
          buffer(c.v, sum.v),
          buffer(c.p, sum.p),
          buffer(c.b, sum.b),
          buffer(c.d, sum.d),
          buffer(c.beta, sum.beta),
          buffer(c.beta_logit, sum.beta_logit),
          buffer(c.g, sum.g),
          buffer(c.a, sum.a),
          buffer(c.A_log, sum.A_log),
          buffer(c.dt_bias, sum.dt_bias),
          buffer(c.initial_state, sum.initial_state)};
}

}  // namespace comba::test
