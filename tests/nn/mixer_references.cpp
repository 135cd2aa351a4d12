#include "mixer_references.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>

namespace comba::nn::reference {
namespace {

using Tensors = std::vector<at::Tensor>;

at::Tensor projected(const Parameters& p, const at::Tensor& x, const std::string& name) {
  const at::Tensor y = at::matmul(x, p[name + ".weight"].t());
  return p.contains(name + ".bias") ? y + p[name + ".bias"] : y;
}

at::Tensor heads(const at::Tensor& x, int64_t num_heads) {
  return x.reshape({x.size(0), x.size(1), num_heads, x.size(2) / num_heads});
}

at::Tensor flat(const at::Tensor& x) { return x.reshape({x.size(0), x.size(1), -1}); }

at::Tensor rms(const at::Tensor& x, const at::Tensor& weight) {
  return x / (x.square().mean(-1, true) + kEps).sqrt() * weight;
}

at::Tensor swish(const at::Tensor& x) { return x * x.sigmoid(); }

/// Causal convolution of each channel, with SiLU.
at::Tensor convolved(const Parameters& p, const at::Tensor& x, const std::string& name) {
  const at::Tensor bias = p.contains(name + ".bias") ? p[name + ".bias"] : at::Tensor();
  const at::Tensor z = at::conv1d(x.transpose(1, 2), p[name + ".weight"], bias, 1, 3, 1, x.size(2));
  return swish(z.narrow(2, 0, x.size(1)).transpose(1, 2));
}

/// x [B, T, H, K] turned: dims i and i + K/2 are a complex number.
at::Tensor rotated(const at::Tensor& x) {
  const int64_t half = x.size(3) / 2;
  Tensors tokens;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const at::Tensor angle = static_cast<double>(t) * at::pow(1e4, -at::arange(half, at::kDouble) / half);
    const at::Tensor a = x.select(1, t).narrow(-1, 0, half), b = x.select(1, t).narrow(-1, half, half);
    tokens.push_back(at::cat({a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()}, -1));
  }
  return at::stack(tokens, 1);
}

/// S = decay S + k v^T, o = S^T q;  decay [B, T, H, K or 1, V or 1], undefined: 1.
at::Tensor recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& decay) {
  at::Tensor state = at::zeros({q.size(0), q.size(2), q.size(3), v.size(3)}, q.options());
  Tensors outputs;
  for (int64_t t = 0; t < q.size(1); ++t) {
    if (decay.defined()) state = state * decay.select(1, t);
    state = state + k.select(1, t).unsqueeze(-1) * v.select(1, t).unsqueeze(-2);
    outputs.push_back((state * q.select(1, t).unsqueeze(-1)).sum(2));
  }
  return at::stack(outputs, 1);
}

at::Tensor gated_output(const Parameters& p, const at::Tensor& x, const at::Tensor& o) {
  const at::Tensor gate = heads(projected(p, x, "g_proj"), o.size(2));
  return projected(p, flat(rms(o, p["g_norm_swish_gate.weight"]) * swish(gate)), "o_proj");
}

double inverse_root(const at::Tensor& k) { return 1 / std::sqrt(static_cast<double>(k.size(-1))); }

}  // namespace

at::Tensor attention(const Parameters& p, const at::Tensor& x, int64_t num_heads, int64_t num_kv_heads,
                     int64_t window) {
  const auto repeated = [&](const at::Tensor& kv) { return kv.repeat_interleave(num_heads / num_kv_heads, 2); };
  const at::Tensor q = rotated(heads(projected(p, x, "q_proj"), num_heads));
  const at::Tensor k = repeated(rotated(heads(projected(p, x, "k_proj"), num_kv_heads)));
  const at::Tensor v = repeated(heads(projected(p, x, "v_proj"), num_kv_heads));
  Tensors outputs;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const int64_t first = std::max<int64_t>(0, t - window + 1);
    const at::Tensor scores =
        (q.select(1, t).unsqueeze(1) * k.narrow(1, first, t - first + 1)).sum(-1) * inverse_root(k);
    const at::Tensor weights = scores.exp() / scores.exp().sum(1, true);
    outputs.push_back((weights.unsqueeze(-1) * v.narrow(1, first, t - first + 1)).sum(1));
  }
  return projected(p, flat(at::stack(outputs, 1)), "o_proj");
}

at::Tensor linear_attention(const Parameters& p, const at::Tensor& x, int64_t num_heads) {
  const auto feature = [](const at::Tensor& y) { return at::where(y > 0, y + 1, y.clamp_max(0).exp()); };
  const at::Tensor q = feature(heads(projected(p, x, "q_proj"), num_heads));
  const at::Tensor k = feature(heads(projected(p, x, "k_proj"), num_heads));
  const at::Tensor o = recurrence(q * inverse_root(k), k, heads(projected(p, x, "v_proj"), num_heads), {});
  return projected(p, flat(rms(o, p["norm.weight"])), "o_proj");
}

at::Tensor retnet(const Parameters& p, const at::Tensor& x, int64_t num_heads) {
  const at::Tensor q = rotated(heads(projected(p, x, "q_proj"), num_heads));
  const at::Tensor k = rotated(heads(projected(p, x, "k_proj"), num_heads));
  std::vector<double> factors;
  for (int64_t h = 0; h < num_heads; ++h) factors.push_back(1 - std::pow(2.0, -5.0 - static_cast<double>(h)));
  const at::Tensor decay =
      at::tensor(factors, x.options()).view({1, 1, -1, 1, 1}).expand({x.size(0), x.size(1), -1, -1, -1});
  const at::Tensor v = heads(projected(p, x, "v_proj"), num_heads);
  return gated_output(p, x, recurrence(q * inverse_root(k), k, v, decay));
}

at::Tensor gla(const Parameters& p, const at::Tensor& x, int64_t num_heads) {
  const at::Tensor low = at::matmul(x, p["gk_proj.0.weight"].t());
  const at::Tensor decay = projected(p, low, "gk_proj.1").sigmoid().pow(1.0 / 16);
  const at::Tensor q = heads(projected(p, x, "q_proj"), num_heads), k = heads(projected(p, x, "k_proj"), num_heads);
  const at::Tensor v = heads(projected(p, x, "v_proj"), num_heads);
  return gated_output(p, x, recurrence(q * inverse_root(k), k, v, heads(decay, num_heads).unsqueeze(-1)));
}

at::Tensor hgrn2(const Parameters& p, const at::Tensor& x, int64_t num_heads, int64_t layer) {
  const at::Tensor sums = p["lower_bounds"].softmax(0).cumsum(0);
  const at::Tensor bound = sums[layer] - sums[0];
  const at::Tensor keep = heads(bound + (1 - bound) * projected(p, x, "f_proj").sigmoid(), num_heads);
  const at::Tensor q = heads(swish(projected(p, x, "q_proj")), num_heads);
  const at::Tensor o =
      recurrence(q * inverse_root(keep), 1 - keep, heads(projected(p, x, "i_proj"), num_heads), keep.unsqueeze(-1));
  return projected(p, rms(flat(o), p["g_norm.weight"]), "o_proj");
}

at::Tensor mamba2(const Parameters& p, const at::Tensor& x, int64_t head_dim, int64_t state_size, int64_t num_groups) {
  const int64_t num_heads = p["A_log"].size(0), inner = num_heads * head_dim, group = num_groups * state_size;
  const at::Tensor all = projected(p, x, "in_proj");
  const at::Tensor mixed = convolved(p, all.narrow(-1, inner, inner + 2 * group), "conv1d");
  const at::Tensor v = heads(mixed.narrow(-1, 0, inner), num_heads);
  const auto of_heads = [&](int64_t begin) {
    return heads(mixed.narrow(-1, begin, group), num_groups).repeat_interleave(num_heads / num_groups, 2);
  };
  const at::Tensor step = (all.narrow(-1, 2 * inner + 2 * group, num_heads) + p["dt_bias"]).exp().log1p();
  const at::Tensor decay = (-p["A_log"].exp() * step).exp();
  const at::Tensor o =
      recurrence(of_heads(inner + group), of_heads(inner), v * step.unsqueeze(-1), decay.unsqueeze(-1).unsqueeze(-1)) +
      p["D"].view({-1, 1}) * v;
  return projected(p, rms(flat(o) * swish(all.narrow(-1, 0, inner)), p["norm.weight"]), "out_proj");
}

at::Tensor gated_slot_attention(const Parameters& p, const at::Tensor& x, int64_t num_heads) {
  const auto silu_heads = [&](const char* name) { return swish(heads(projected(p, x, name), num_heads)); };
  const at::Tensor keep = heads(projected(p, x, "f_proj").sigmoid().pow(1.0 / 8), num_heads);  // [B, T, H, M]
  const at::Tensor read = recurrence(silu_heads("q_proj"), silu_heads("k_proj"), 1 - keep, keep.unsqueeze(-2));
  const at::Tensor o = recurrence(read.softmax(-1), 1 - keep, silu_heads("v_proj"), keep.unsqueeze(-1));
  return projected(p, rms(flat(swish(o)), p["g_norm.weight"]), "o_proj");
}

at::Tensor rwkv7(const Parameters& p, const at::Tensor& x, const at::Tensor& first_v, int64_t head_dim) {
  const int64_t num_heads = x.size(2) / head_dim;
  const at::Tensor before = at::cat({at::zeros_like(x.narrow(1, 0, 1)), x.narrow(1, 0, x.size(1) - 1)}, 1);
  const auto mixed = [&](const char* name) { return x + (before - x) * p[name]; };
  const auto low_rank = [&](const std::string& name, const char* of, at::Tensor (*middle)(const at::Tensor&)) {
    return projected(p, middle(projected(p, mixed(of), name + ".lora.0")), name + ".lora.2");
  };
  const auto same = [](const at::Tensor& y) { return y; };
  const auto of_heads = [&](const at::Tensor& y) { return heads(y, num_heads); };
  const auto channels = [&](const char* name) { return p[name].view({num_heads, head_dim}); };

  const at::Tensor r = of_heads(projected(p, mixed("x_r"), "r_proj"));
  const at::Tensor k = of_heads(projected(p, mixed("x_k"), "k_proj"));
  at::Tensor v = projected(p, mixed("x_v"), "v_proj");
  if (first_v.defined()) v = v + (first_v - v) * low_rank("v_lora", "x_v", same).sigmoid();
  v = of_heads(v);
  const at::Tensor decay = of_heads((-std::exp(-0.5) * low_rank("w_lora", "x_w", at::tanh).sigmoid()).exp());
  const at::Tensor a = of_heads(low_rank("a_lora", "x_a", same).sigmoid());
  const at::Tensor gate = low_rank("g_lora", "x_g", at::sigmoid);
  const at::Tensor raw = k * channels("k_k");
  const at::Tensor removal = raw / (raw.square().sum(-1, true) + 1e-6).sqrt();
  const at::Tensor added = k * (1 + (a - 1) * channels("k_a"));

  at::Tensor state = at::zeros({x.size(0), num_heads, head_dim, head_dim}, x.options());  // S: V x K
  Tensors outputs;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const auto row = [&](const at::Tensor& y) { return y.select(1, t).unsqueeze(-2); };     // [B, H, 1, .]
    const auto column = [&](const at::Tensor& y) { return y.select(1, t).unsqueeze(-1); };  // [B, H, ., 1]
    const at::Tensor seen = (state * row(removal)).sum(-1, true);                           // S k^
    state = state * row(decay) - seen * row(removal * a) + column(v) * row(added);
    outputs.push_back((state * row(r)).sum(-1));
  }
  const at::Tensor o = at::stack(outputs, 1), mean = o.mean(-1, true);
  const at::Tensor scaled = (o - mean) / ((o - mean).square().mean(-1, true) + head_dim * kEps).sqrt();
  const at::Tensor bonus = (r * added * p["r_k"]).sum(-1, true) * v;
  const at::Tensor normed = flat(scaled) * p["g_norm.weight"] + p["g_norm.bias"];
  return projected(p, (normed + flat(bonus)) * gate, "o_proj");
}

at::Tensor inner_learning(const Parameters& p, const at::Tensor& x, int64_t num_heads, Inner inner, double rate,
                          double power) {
  const int64_t mini_batch = 16, size = x.size(2) / num_heads;
  const auto of_heads = [&](const std::string& name) {
    return heads(convolved(p, projected(p, x, name + "_proj"), name + "_conv1d"), num_heads);
  };
  const auto unit = [](const at::Tensor& y) { return y / (y.square().sum(-1, true) + 1e-6).sqrt(); };
  const at::Tensor q = unit(of_heads("q")), k = unit(of_heads("k")), v = of_heads("v");
  const at::Tensor rates = rate * projected(p, x, "lr_proj").sigmoid() / (inner == Inner::miras ? 1.0 : size);
  at::Tensor decay;
  if (inner == Inner::miras) {
    decay = (-p["A_log"].exp() * (projected(p, x, "a_proj") + p["dt_bias"]).exp().log1p()).exp();
  }
  const auto heads_of = [&](const char* name) { return p[name].view({num_heads, -1}); };
  const auto norm = [&](const at::Tensor& z) {  // [B, H, K]
    const at::Tensor centred = z - z.mean(-1, true);
    return centred / (centred.square().mean(-1, true) + 1e-6).sqrt() * heads_of("inner_norm_weight") +
           heads_of("inner_norm_bias");
  };
  const auto apply = [](const at::Tensor& y, const at::Tensor& W) { return (y.unsqueeze(-1) * W).sum(-2); };
  const auto model = [&](const Tensors& w, const at::Tensor& y) {
    if (inner == Inner::miras) return apply(y, w[0]);
    const at::Tensor first = apply(y, w[0]) + w[1];
    return inner == Inner::linear ? first : apply(0.5 * first * (1 + at::erf(first / std::sqrt(2.0))), w[2]) + w[3];
  };

  Tensors now;
  const auto streams = [&](const char* name) {
    const at::Tensor weight = p[name].dim() == 1 ? heads_of(name) : p[name];
    return weight.unsqueeze(0).repeat_interleave(x.size(0), 0);
  };
  if (inner == Inner::linear) now = {streams("W"), streams("b")};
  if (inner == Inner::mlp) now = {streams("W1"), streams("b1"), streams("W2"), streams("b2")};
  if (inner == Inner::miras) now = {at::zeros({x.size(0), num_heads, size, size}, x.options()).requires_grad_(true)};
  Tensors start, outputs;
  for (int64_t t = 0; t < x.size(1); ++t) {
    if (t % mini_batch == 0) start = now;
    const at::Tensor key = k.select(1, t), value = v.select(1, t);
    const at::Tensor loss = inner == Inner::miras ? (model(start, key) - value).abs().pow(power).sum()
                                                  : 0.5 * (norm(model(start, key)) - (value - key)).square().sum();
    const Tensors gradients = torch::autograd::grad({loss}, start, {}, true, /*create_graph=*/true);
    for (size_t i = 0; i < now.size(); ++i) {
      const auto like = [&](const at::Tensor& scalars) {  // [B, H] -> [B, H, 1, ..]
        std::vector<int64_t> sizes(static_cast<size_t>(now[i].dim()), 1);
        sizes[0] = x.size(0);
        sizes[1] = num_heads;
        return scalars.select(1, t).view(sizes);
      };
      now[i] = (decay.defined() ? like(decay) * now[i] : now[i]) - like(rates) * gradients[i];
    }
    const at::Tensor asked = model(now, q.select(1, t));
    outputs.push_back(inner == Inner::miras ? asked : asked + norm(asked));
  }
  return projected(p, rms(flat(at::stack(outputs, 1)), p["o_norm.weight"]), "o_proj");
}

}  // namespace comba::nn::reference
