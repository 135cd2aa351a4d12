#pragma once

#include "tasks/numpy_random.h"
#include "tasks/task_data.h"

namespace comba::tasks {

/// Tasks that need a state which each token changes, and nothing else: the label of every position is the product, in
/// a group, of all tokens up to it. Tokens are drawn uniformly, by one RandomState.randint(0, V, (N, T)).
///
///     parity            V = 2   the sum modulo 2
///     modular-addition  V       the sum modulo V
///     s3                V = 6   permutations of three things in lexicographic order, 012 021 102 120 201 210; the
///     label
///                               is the permutation that applies the first token first: x -> token_t(...(token_1(x)))
Segment make_state_tracking(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random);

/// Throws Error(invalid_argument) for a vocabulary that the task does not have.
void validate_vocab(const DataSpec& spec);

}  // namespace comba::tasks
