#pragma once

#include <string>
#include <vector>

#include "measure.h"

namespace comba::benchmarks {

/// The operator on CPU beside what this machine does at best: LibTorch's matrix products and an update in place.
std::vector<Row> operator_cpu_rows();

/// Name of the implementation that runs them.
std::string operator_implementation();

}  // namespace comba::benchmarks
