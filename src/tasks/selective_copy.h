#pragma once

#include "tasks/numpy_random.h"
#include "tasks/task_data.h"

namespace comba::tasks {

/// Tokens of the model that are not among the V that are copied: the blank, V, and the mark of an answer, V + 1.
inline constexpr std::int64_t kNumCopyMarks = 2;

/// Selective copying (arXiv 2312.00752, section 4.1.1): P tokens stand somewhere among T - 2P blanks, then follow P
/// marks, and the label at the i-th mark is the i-th of the tokens. Example after example, the tokens are drawn by P
/// calls of RandomState.randint(0, V), then their places by choice(T - P, P, replace=False), sorted.
Segment make_selective_copy(const DataSpec& spec, const SegmentSpec& segment, NumpyRandom& random);

/// Throws Error(invalid_argument) when the tokens do not fit.
void validate_selective_copy(const DataSpec& spec, const SegmentSpec& segment);

}  // namespace comba::tasks
