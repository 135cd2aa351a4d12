#include "training/metrics_log.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/file.h"
#include "base/message.h"

namespace comba::training {
namespace {

constexpr const char* kHeldout = "heldout_bits_per_byte";

nlohmann::ordered_json to_json(const evaluation::LoopDiagnostics& loop) {
  nlohmann::ordered_json json;
  json["module"] = loop.module;
  json["state_norm"] = loop.state_norm;
  json["decay"] = loop.decay;
  json["key_eigenvalue"] = loop.key_eigenvalue;
  json["negative_share"] = loop.negative_share;
  json["feedback"] = loop.feedback;
  if (loop.query_ratio) json["query_ratio"] = *loop.query_ratio;
  if (loop.query_cosine) json["query_cosine"] = *loop.query_cosine;
  if (loop.correction) json["correction"] = *loop.correction;
  json["key_coherence"] = loop.key_coherence;
  json["decay_memory"] = loop.decay_memory;
  json["memory"] = loop.memory;
  return json;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::int64_t last_step) : path_(path) {
  write_file_atomically(path, std::filesystem::exists(path) ? take_lines(read_file(path), last_step) : std::string());
  file_.open(path, std::ios::app);
  require(file_.is_open(), ErrorCode::io, "[MetricsLog] the file must be writable; got ", path.string());
}

/// The lines of `text` that belong to steps up to `last_step`. A line cut short by a crash is dropped.
std::string MetricsLog::take_lines(const std::string& text, std::int64_t last_step) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    const auto step = json["step"].get<std::int64_t>();
    if (step > last_step) continue;
    kept += line + '\n';
    if (json.contains(kHeldout) && json[kHeldout].is_number()) heldout_[step] = json[kHeldout].get<double>();
  }
  return kept;
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
  json[kHeldout] = heldout.bits_per_byte();
  json["heldout_nats"] = heldout.nats;
  json["heldout_bytes"] = heldout.bytes;
  write_line(json.dump());
  if (std::isfinite(heldout.bits_per_byte())) heldout_[step] = heldout.bits_per_byte();
}

void MetricsLog::write(std::int64_t step, const std::vector<evaluation::LoopDiagnostics>& loops, double seconds) {
  nlohmann::ordered_json json;
  json["step"] = step;
  json["control_loops"] = nlohmann::ordered_json::array();
  for (const evaluation::LoopDiagnostics& loop : loops) json["control_loops"].push_back(to_json(loop));
  json["diagnosis_seconds"] = seconds;
  write_line(json.dump());
}

void MetricsLog::write_sample(std::int64_t step, const std::string& text) {
  nlohmann::ordered_json json;
  json["step"] = step;
  json["sample"] = text;
  write_line(json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace));
}

void MetricsLog::write_line(const std::string& line) {
  file_ << line << std::endl;
  require(file_.good(), ErrorCode::io, "[MetricsLog] writing failed: is the disk full? ", path_.string());
}

}  // namespace comba::training
