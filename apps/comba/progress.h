#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace comba::cli {

/// How a long command shows where it is, on stderr: one line that is drawn over and over on a terminal, and now and
/// then a plain line elsewhere.
class ProgressLine {
 public:
  explicit ProgressLine(std::FILE* stream = stderr);
  /// Ends the line, so that what follows starts on its own.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Shows `text` once in a while, so call it as often as you like: each 0.1 s on a terminal, each 10 s elsewhere.
  void update(const std::string& text);
  /// Shows `text`, whenever that is: the last state of a job.
  void finish(const std::string& text);
  /// Writes a line of its own that stays.
  void note(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;

  void draw(const std::string& text);

  std::FILE* stream_;
  bool terminal_;
  bool line_open_ = false;
  Clock::time_point last_ = Clock::now();
};

}  // namespace comba::cli
