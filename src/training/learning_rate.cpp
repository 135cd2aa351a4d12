#include "training/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace comba::training {

double learning_rate(const TrainConfig& config, std::int64_t step) {
  const double peak = config.learning_rate;
  if (step < config.warmup_steps) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  }
  const auto decay_steps = static_cast<double>(config.steps - config.warmup_steps);
  const double progress = std::min(1.0, static_cast<double>(step - config.warmup_steps + 1) / decay_steps);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return peak * (config.final_learning_rate + (1.0 - config.final_learning_rate) * cosine);
}

}  // namespace comba::training
