#pragma once

#include <string>
#include <vector>

#include "measure.h"

namespace comba::benchmarks {

/// A line a row: time, rate, and the share of its ceiling.
std::string to_table(const std::vector<Measurement>& measurements);

/// The processor's model.
std::string processor();

/// {"context": {program, processor, threads, implementation}, "rows": [{name, unit, work, seconds, median_seconds,
/// rate, ceiling, of_ceiling}]}.
std::string to_json(const std::vector<Measurement>& measurements);

}  // namespace comba::benchmarks
