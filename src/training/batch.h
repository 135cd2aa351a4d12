#pragma once

#include <torch/types.h>

#include <cstdint>

#include "training/mixture.h"

namespace comba::training {

/// B windows of training tokens and the token that follows each.
struct Batch {
  at::Tensor input_ids;  ///< [B, T] i64
  at::Tensor labels;  ///< [B, T] i64   the successor of input_ids[b, t], or kIgnoredLabel when it is not to be learned
};

/// Windows number first_sample to first_sample + batch_size - 1 of the run.
Batch read_batch(const Mixture& mixture, const MixtureSampler& sampler, std::int64_t first_sample,
                 std::int64_t batch_size);

}  // namespace comba::training
