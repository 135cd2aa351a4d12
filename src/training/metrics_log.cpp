#include "training/metrics_log.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/file.h"
#include "base/message.h"

namespace comba::training {
namespace {

/// The lines of `text` that belong to steps up to `last_step`. A line cut short by a crash is dropped.
std::string lines_up_to(const std::string& text, std::int64_t last_step) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.value("step", last_step + 1) <= last_step) kept += line + '\n';
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t last_step) : path_(path) {
  const std::string kept = std::filesystem::exists(path) ? lines_up_to(read_file(path), last_step) : std::string();
  write_file_atomically(path, kept);
  file_.open(path, std::ios::app);
  require(file_.is_open(), ErrorCode::io, "[MetricsLog] the file must be writable; got ", path.string());
}

void MetricsLog::write(const StepReport& report) {
  nlohmann::ordered_json json;
  json["step"] = report.step;
  json["loss"] = report.loss;
  json["learning_rate"] = report.learning_rate;
  json["gradient_norm"] = report.gradient_norm;
  json["tokens"] = report.tokens;
  json["seconds"] = report.seconds;
  write_line(json.dump());
}

void MetricsLog::write(std::int64_t step, const evaluation::EvaluationResult& heldout) {
  nlohmann::ordered_json json;
  json["step"] = step;
  json["heldout_bits_per_byte"] = heldout.bits_per_byte();
  json["heldout_nats"] = heldout.nats;
  json["heldout_bytes"] = heldout.bytes;
  write_line(json.dump());
}

void MetricsLog::write_line(const std::string& line) {
  file_ << line << std::endl;
  require(file_.good(), ErrorCode::io, "[MetricsLog] writing failed: is the disk full? ", path_.string());
}

}  // namespace comba::training
