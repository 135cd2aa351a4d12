#include "models/initialization.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "models/rwkv7_initialization.h"

namespace comba::models {
namespace {

// exp(a_log) uniform in (0, most]: at 0 itself the logarithm, and with it every gradient, would be lost.
void draw_decay_rate(at::Tensor& a_log, double most, const at::Generator& generator) {
  a_log.uniform_(0, 1, generator);
  a_log.copy_(((1 - a_log) * most).log());
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

/// The parameters in the order in which they are drawn: that of the model, but a gate's projection, which lies beside
/// the other projections of a mixer, comes behind its convolutions.
std::vector<std::pair<std::string, at::Tensor>> in_order_of_draws(const torch::nn::Module& model) {
  std::vector<std::pair<std::string, at::Tensor>> order, held;
  const auto parameters = model.named_parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].key();
    if (name.ends_with("o_norm.weight")) {
      order.insert(order.end(), held.begin(), held.end());
      held.clear();
    }
    const bool is_early = name.ends_with("g_proj.weight") && i + 1 < parameters.size() &&
                          parameters[i + 1].key().ends_with("b_proj.weight");
    (is_early ? held : order).emplace_back(name, parameters[i].value());
  }
  return order;
}

}  // namespace

void initialize_parameters(torch::nn::Module& model, const ModelConfig& config, uint64_t seed) {
  const torch::NoGradGuard no_grad;
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (auto& [name, value] : in_order_of_draws(model)) {
    if (name.ends_with("A_log")) {
      draw_decay_rate(value, config.A_init_max, generator);
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
