#include "models/initialization.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "models/rwkv7_initialization.h"

namespace comba::models {
namespace {

// exp(a_log) uniform in (0, 16]: at 0 itself the logarithm, and with it every gradient, would be lost.
void draw_decay_rate(at::Tensor& a_log, const at::Generator& generator) {
  a_log.uniform_(0, 1, generator);
  a_log.copy_(((1 - a_log) * 16).log());
}

// softplus(dt_bias) log-uniform in [1e-3, 1e-1].
void draw_time_step(at::Tensor& dt_bias, const at::Generator& generator) {
  dt_bias.uniform_(std::log(1e-3), std::log(1e-1), generator);
  const at::Tensor dt = dt_bias.exp();
  dt_bias.copy_(dt + (-at::expm1(-dt)).log());
}

// Output projections of the halves of a block: smaller with depth, since all of them add up in the residual stream.
void draw_residual_projection(at::Tensor& weight, int64_t num_summands, const at::Generator& generator) {
  const double bound = 1 / std::sqrt(static_cast<double>(weight.size(1)));
  weight.uniform_(-bound, bound, generator);
  weight.div_(std::sqrt(static_cast<double>(num_summands)));
}

bool ends_with_one_of(const std::string& name, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return name.ends_with(end); });
}

}  // namespace

void initialize_parameters(torch::nn::Module& model, const ModelConfig& config, uint64_t seed) {
  const torch::NoGradGuard no_grad;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (auto& parameter : model.named_parameters()) {
    const std::string& name = parameter.key();
    at::Tensor& value = parameter.value();
    if (name.ends_with("A_log")) {
      draw_decay_rate(value, generator);
    } else if (name.ends_with("dt_bias")) {
      draw_time_step(value, generator);
    } else if (name.ends_with(".D")) {
      value.fill_(config.correction_factor);
    } else if (ends_with_one_of(name, {".decay", "norm.weight", "norm_f.weight", "g_norm_swish_gate.weight",
                                       ".inner_norm_weight"})) {
      value.fill_(1);
    } else if (ends_with_one_of(name, {".bias", ".b", ".b1", ".b2", ".inner_norm_bias", ".lower_bounds"})) {
      value.fill_(0);
    } else if (ends_with_one_of(name, {"o_proj.weight", "down_proj.weight", "ffn.value.weight"})) {
      draw_residual_projection(value, 2 * config.num_hidden_layers, generator);
    } else if (name.ends_with("out_proj.weight")) {
      draw_residual_projection(value, config.num_hidden_layers, generator);  // of blocks without an MLP
    } else {
      value.normal_(0, config.initializer_range, generator);
    }
  }
  if (config.model_type == "rwkv7") set_rwkv7_vectors(model, config);
}

}  // namespace comba::models
