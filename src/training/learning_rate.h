#pragma once

#include <cstdint>

#include "training/train_config.h"

namespace comba::training {

/// Learning rate of step `step` (0 is the first): linear warm-up to the peak, then half a cosine that ends, at the last
/// step, at `final_learning_rate` of the peak. With w warm-up steps, n steps, peak p and final fraction f:
///
///     step < w    p (step + 1) / w
///     otherwise   p (f + (1 - f) (1 + cos(pi x)) / 2),   x = (step - w + 1) / (n - w)
///
/// so that the peak itself is reached once, in the last step of the warm-up.
double learning_rate(const TrainConfig& config, std::int64_t step);

}  // namespace comba::training
