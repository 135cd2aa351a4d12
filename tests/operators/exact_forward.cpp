#include "operators/exact_forward.h"

#include "comba/parallel.h"

namespace comba::test {
namespace {

using reference::Vector;

/// Tokens [first_row, first_row + count) of one head of a [B, T, heads, dim] or [B, T, heads] tensor.
Vector tokens_of_head(const Buffer& x, const reference::Sequence& s, std::int64_t head) {
  if (!x.given()) return {};
  const std::int64_t heads = x.sizes()[2], dim = x.sizes().size() == 4 ? x.sizes()[3] : 1;
  Vector values;
  values.reserve(s.num_tokens * dim);
  for (std::int64_t row = s.first_row; row < s.first_row + s.num_tokens; ++row) {
    for (std::int64_t i = 0; i < dim; ++i) values.push_back(x.at((row * heads + head) * dim + i));
  }
  return values;
}

Vector of_head(const Buffer& x, std::int64_t head) { return x.given() ? Vector{x.at(head)} : Vector{}; }

}  // namespace

reference::DeltaRule one_head(const Case& c, const delta_rule::Problem& x, std::int64_t n, std::int64_t head) {
  const delta_rule::Problem::Sequence tokens = x.sequence(n);
  const reference::Sequence s = {tokens.batch * x.T + tokens.begin, tokens.end - tokens.begin};
  const std::int64_t key = head / x.group(), state = x.K * x.V;
  reference::DeltaRule r;
  r.gated_delta = c.options.rule == Rule::gated_delta;
  r.fla = c.options.convention == Convention::fla;
  r.l2norm = c.options.l2norm;
  r.l2norm_eps = c.options.l2norm_eps;
  r.scale = x.scale;
  r.beta_scale = c.options.beta_scale;
  r.K = x.K;
  r.V = x.V;
  r.sequences = {{0, s.num_tokens}};
  r.in.q = tokens_of_head(c.q, s, key);
  r.in.k = tokens_of_head(c.k, s, key);
  r.in.v = tokens_of_head(c.v, s, head);
  r.in.p = tokens_of_head(c.p, s, x.P_heads == x.HV ? head : key);
  r.in.b = of_head(c.b, key);
  r.in.d = of_head(c.d, key);
  r.in.beta = tokens_of_head(c.beta, s, head);
  r.in.beta_logit = tokens_of_head(c.beta_logit, s, head);
  r.in.g = tokens_of_head(c.g, s, head);
  r.in.a = tokens_of_head(c.a, s, head);
  r.in.A_log = of_head(c.A_log, head);
  r.in.dt_bias = of_head(c.dt_bias, head);
  for (std::int64_t i = 0; c.initial_state.given() && i < state; ++i) {
    r.in.initial_state.push_back(c.initial_state.at((n * x.HV + head) * state + i));
  }
  return r;
}

Outputs for_each_head(Case& c, DType dtype,
                      reference::DeltaRule::Outputs (*forward_of_head)(const reference::DeltaRule&, DType)) {
  const delta_rule::Problem x = delta_rule::check("for_each_head", c.options, c.inputs());
  Outputs out{Buffer(dtype, {x.B, x.T, x.HV, x.V}), Buffer(DType::f32, {x.N, x.HV, x.K, x.V})};
  parallel_for(x.N * x.HV, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / x.HV, head = i % x.HV, state = x.K * x.V;
      const reference::DeltaRule::Outputs one = forward_of_head(one_head(c, x, n, head), c.description.dtype);
      const delta_rule::Problem::Sequence s = x.sequence(n);
      for (std::int64_t t = 0; t < s.end - s.begin; ++t) {
        const std::int64_t row = (s.batch * x.T + s.begin + t) * x.HV + head;
        for (std::int64_t v = 0; v < x.V; ++v) out.o.set(row * x.V + v, one.o[t * x.V + v]);
      }
      for (std::int64_t j = 0; j < state; ++j) out.final_state.set(i * state + j, one.final_state[j]);
    }
  });
  return out;
}

Outputs exact_forward(Case& c) {
  return for_each_head(c, DType::f32, [](const reference::DeltaRule& head, DType) { return head.forward(); });
}

}  // namespace comba::test
