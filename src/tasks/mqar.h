#pragma once

#include <ATen/core/Generator.h>

#include "tasks/numpy_random.h"
#include "tasks/task_data.h"

namespace comba::tasks {

/// Multi-query associative recall, as Zoology defines it (arXiv 2312.04927, HazyResearch/zoology): P keys, each behind
/// it its value, then each key once more as a query, at whose position the label is its value.
///
///     keys     P of 1 .. V/2 - 1, values P of V/2 .. V - 1, each once in an example
///     queries  at 2P + 2 gap, the P gaps of an example different and below (T - 2P)/2, drawn by a power law:
///              gap i has probability ~ (i + 1)^(0.01 - 1)
///
/// The draws: the keys of all examples, then all values, then all gaps, each by one RandomState.choice without
/// replacement. What is left holds token 0, or with random_non_queries any token, by one torch.randint(V, (N, T)) a
/// segment: `fillers`, which goes on from segment to segment, stands for torch's generator after manual_seed(123).
Segment make_mqar(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random, const at::Generator& fillers);

/// Throws Error(invalid_argument) where the definition does not apply.
void validate_mqar(const DataSpec& spec, const SegmentSpec& segment);

}  // namespace comba::tasks
