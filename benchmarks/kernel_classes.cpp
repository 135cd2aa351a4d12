#include "kernel_classes.h"

#include <initializer_list>

#include "models/causal_lm.h"
#include "models/training_flops.h"

namespace comba::benchmarks {
namespace {

enum Class : std::size_t { kProducts, kDeltaRule, kAttention, kElementWise, kOptimizer, kLoss, kCopies };

struct Pattern {
  Class kernel_class;
  std::initializer_list<const char*> parts;
};

/// The first that has a part in the name wins.
const Pattern kPatterns[] = {
    {kAttention, {"flash", "fmha", "sdpa"}},
    {kLoss, {"CrossEntropy", "cross_entropy", "nll_loss", "softmax", "SoftMax", "Softmax"}},
    {kOptimizer, {"Adam", "adam", "multi_tensor_apply", "LpNorm", "lpnorm"}},
    {kElementWise, {"rms_norm", "short_conv", "swiglu"}},
    {kDeltaRule, {"delta_rule"}},
    {kProducts, {"gemm", "cutlass", "nvjet", "cublas", "splitK", "gemv"}},
    {kCopies, {"Memcpy", "Memset", "direct_copy"}},
};

}  // namespace

std::size_t class_of(const std::string& kernel) {
  for (const Pattern& pattern : kPatterns) {
    for (const char* part : pattern.parts) {
      if (kernel.find(part) != std::string::npos) return pattern.kernel_class;
    }
  }
  return kElementWise;
}

std::vector<double> floor_seconds(const models::ModelConfig& model, const training::TrainConfig& config,
                                  const DeviceRates& rates) {
  std::vector<double> floors(kKernelClasses.size(), 0.0);
  if (rates.flop_per_second == 0) return floors;
  const auto tokens = static_cast<double>(config.batch_size * config.context_length);
  const models::TrainingFlops flops = models::training_flops_per_token(model, config.context_length);
  floors[kProducts] = tokens * flops.linear / rates.flop_per_second;
  const bool has_delta_rule =
      !model.attn || static_cast<std::int64_t>(model.attn->layers.size()) < model.num_hidden_layers;
  floors[has_delta_rule ? kDeltaRule : kAttention] = tokens * flops.mixer / rates.flop_per_second;
  double weights = 0;
  for (const auto& row : models::parameter_table(model)) weights += static_cast<double>(row.count);
  const auto d = static_cast<double>(model.hidden_size), f = static_cast<double>(model.intermediate_size);
  const auto key = static_cast<double>(model.num_heads * model.head_dim);
  const auto value = static_cast<double>(model.num_v_heads * model.head_v_dim());
  const double norms = 2 * 4 * d, convolutions = 2 * (2 * key + value), gated_norm = 3 * value, mlp = 3 * f;
  const double elements = static_cast<double>(model.num_hidden_layers) * (norms + convolutions + gated_norm + mlp);
  floors[kElementWise] = 3 * 2 * tokens * elements / rates.bytes_per_second;
  floors[kOptimizer] = 44 * weights / rates.bytes_per_second;
  floors[kLoss] = 4 * 2 * tokens * static_cast<double>(model.vocab_size) / rates.bytes_per_second;
  return floors;
}

}  // namespace comba::benchmarks
