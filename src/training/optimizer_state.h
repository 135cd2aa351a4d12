#pragma once

#include "models/safetensors.h"
#include "training/flat_parameters.h"
#include "training/optimizer.h"

namespace comba::training {

/// What a checkpoint keeps of an optimizer whose pieces are those of `parameters`: the moments, as "exp_avg.NAME" and
/// "exp_avg_sq.NAME", and "num_steps" (int64, one element). Empty where the group is not led. All processes must call
/// it.
models::NamedTensors gather_state(FlatParameters& parameters, const AdamW& optimizer);

/// Lets the optimizer go on from a saved state, of any number of processes. Throws Error(io) when a tensor is missing,
/// unknown, or of another shape or dtype; then nothing is changed.
void load_state(const models::NamedTensors& state, const FlatParameters& parameters, AdamW& optimizer);

}  // namespace comba::training
