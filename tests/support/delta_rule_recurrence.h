#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "libtorch/delta_rule.h"

namespace comba::test {

/// The operator's definition (include/comba/delta_rule.h), token by token, from ATen operations whose gradients
/// LibTorch knows. Computes in the dtype of its inputs: double, to judge others. No cu_seqlens.
inline DeltaRuleOutput delta_rule_recurrence(const DeltaRuleTensors& x, const DeltaRuleOptions& options) {
  const int64_t groups = x.v.size(2) / x.q.size(2);
  const auto normalised = [&](const at::Tensor& t) {
    return options.l2norm ? t / (t.square().sum(-1, true) + options.l2norm_eps).sqrt() : t;
  };
  const auto per_value_head = [&](const at::Tensor& t) {
    return t.size(2) == x.v.size(2) ? t : t.repeat_interleave(groups, 2);
  };
  const auto one = at::ones({1}, x.q.options());
  const at::Tensor b = (x.b.defined() ? x.b : one).unsqueeze(-1);
  const at::Tensor d = (x.d.defined() ? x.d : one * 0).unsqueeze(-1);
  const bool is_paper = options.convention == Convention::paper;
  const at::Tensor p_raw = x.p.defined() ? x.p : b * x.k;
  at::Tensor p = x.p;
  if (!is_paper) p = normalised(x.p.defined() ? x.p : options.l2norm ? x.k : p_raw);
  if (is_paper && !x.p.defined()) p = b * normalised(x.k);
  const double scale = options.scale ? *options.scale : 1 / std::sqrt(static_cast<double>(x.q.size(3)));
  const at::Tensor q = per_value_head(normalised(x.q - d * (is_paper ? x.k : p_raw))) * scale;
  const at::Tensor k = per_value_head(normalised(x.k));
  p = per_value_head(p);
  const at::Tensor beta = x.beta.defined() ? x.beta : options.beta_scale * x.beta_logit.sigmoid();
  const at::Tensor g = x.g.defined() ? x.g : -x.A_log.exp() * at::softplus(x.a + x.dt_bias);

  at::Tensor h = x.initial_state.defined()
                     ? x.initial_state
                     : at::zeros({x.q.size(0), x.v.size(2), x.q.size(3), x.v.size(3)}, x.q.options());
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < x.q.size(1); ++t) {
    const auto at_token = [&](const at::Tensor& all) { return all.select(1, t); };
    const at::Tensor decay = at_token(g).exp().unsqueeze(-1).unsqueeze(-1);  // [B, HV, 1, 1]
    if (options.rule == Rule::gated_delta) h = decay * h;
    const at::Tensor seen = (at_token(p).unsqueeze(-1) * h).sum(2);  // [B, HV, V]
    const at::Tensor u = at_token(beta).unsqueeze(-1) * (at_token(x.v) - seen);
    if (options.rule == Rule::comba) h = decay * h;
    h = h + at_token(k).unsqueeze(-1) * u.unsqueeze(2);
    outputs.push_back((at_token(q).unsqueeze(-1) * h).sum(2));
  }
  return {.o = at::stack(outputs, 1), .final_state = h};
}

}  // namespace comba::test
