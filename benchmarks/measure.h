#pragma once

#include <functional>
#include <string>
#include <vector>

/// What is timed, and what came of it.
namespace comba::benchmarks {

/// What a row's speed is counted in.
enum class Work { flop, bytes };

/// One thing that is timed.
struct Row {
  std::string name;                                  ///< unique: "forward comba f32 B1 T2048 H16 D128"
  Work unit;                                         ///< FLOP, or bytes moved to and from memory
  double work;                                       ///< units in one call
  std::string ceiling;                               ///< row it is compared with; empty: this row is a ceiling
  std::function<std::function<void()>()> make_call;  ///< allocates the tensors (not timed) and returns the timed call
};

struct Measurement {
  Row row;
  std::vector<double> seconds;  ///< of one call, for each repetition

  double median_seconds() const;
  double rate() const { return row.work / median_seconds(); }  ///< units a second
};

struct MeasureOptions {
  int repetitions = 5;
  double min_seconds = 0.3;  ///< of each repetition
};

/// Times every row on this thread, with its repetitions shuffled among those of the others, so that a slow minute of
/// the machine meets all of them.
std::vector<Measurement> measure(const std::vector<Row>& rows, const MeasureOptions& options);

}  // namespace comba::benchmarks
