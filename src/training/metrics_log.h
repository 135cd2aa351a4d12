#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "evaluation/evaluate.h"
#include "evaluation/loop_diagnostics.h"
#include "training/trainer.h"

namespace comba::training {

/// The numbers of a run, one JSON object a line, each line on the disk as soon as it is known:
///
///     {"step": 7, "loss": 2.1, "learning_rate": 0.001, "gradient_norm": 0.7, "tokens": 14336, "seconds": 0.1}
///     {"step": 7, "heldout_bits_per_byte": 2.9, "heldout_nats": 12345.6, "heldout_bytes": 6142}
///     {"step": 7, "sample": "Once upon a time"}
///     {"step": 7, "control_loops": [{"module": "model.layers.0.attn", "decay": [0.6, ...], ...}, ...],
///      "diagnosis_seconds": 0.1}
///
/// `step` counts completed steps, `tokens` those trained on since the first step, `seconds` are those of this step.
/// Control loops have the names of LoopDiagnostics, quantiles as lists; what a layer does not have is left out.
class MetricsLog {
 public:
  /// Opens `path`, keeping what it has of steps up to `last_step` and dropping what a resumed run will write again.
  /// Throws Error(io) when it cannot be read or written.
  MetricsLog(const std::filesystem::path& path, std::int64_t last_step);

  void write(const StepReport& report);
  void write(std::int64_t step, const evaluation::EvaluationResult& heldout);
  void write(std::int64_t step, const std::vector<evaluation::LoopDiagnostics>& loops, double seconds);
  /// Bytes of `text` that are no UTF-8 become U+FFFD.
  void write_sample(std::int64_t step, const std::string& text);

  /// Held-out bits per byte by step, those of the file included; numbers that are not finite are left out.
  const std::map<std::int64_t, double>& heldout() const { return heldout_; }

 private:
  std::string take_lines(const std::string& text, std::int64_t last_step);
  void write_line(const std::string& line);

  std::filesystem::path path_;
  std::ofstream file_;
  std::map<std::int64_t, double> heldout_;
};

}  // namespace comba::training
