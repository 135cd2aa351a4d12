#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/stop_flag.h"
#include "data/tokenizer.h"
#include "generation/generate.h"
#include "generation/stop_strings.h"
#include "progress.h"
#include "utf8_stream.h"

namespace comba::cli {

struct GenerationOutputOptions {
  std::span<const std::string> texts;           ///< the prompts
  std::span<const generation::Prompt> prompts;  ///< the same as tokens
  const data::Tokenizer& tokenizer;
  std::vector<std::string> stop_strings;
  bool as_json = false;  ///< one object a text, in the order of the prompts; needed for several
  bool echo = true;      ///< the prompt before its text, where not as JSON
};

/// Shows on stdout what is generated, and on stderr how far a long prompt is read. Ends the texts at stop strings and
/// at a signal. Everything it is given must outlive it.
class GenerationOutput {
 public:
  GenerationOutput(const GenerationOutputOptions& options, const StopFlag& stop);

  /// Valid as long as this object.
  generation::GenerateEvents events();

 private:
  struct Text {
    generation::StopStrings stop;
    Utf8Stream utf8 = {};
    std::string shown = {};
    bool begun = false;  // a token is there
  };

  void on_read(std::size_t index, std::int64_t tokens);
  bool on_token(std::size_t index, std::int64_t token);
  void on_end(std::size_t index, const generation::Continuation& continuation);
  void show_prompt(Text& text, std::size_t index);
  std::string decode(std::size_t index, std::int64_t token, bool is_first) const;
  void show(Text& text, std::string_view bytes);
  std::string to_json(std::size_t index, const generation::Continuation& continuation) const;

  GenerationOutputOptions options_;
  const StopFlag& stop_;
  std::map<std::size_t, Text> texts_;         // that are being generated
  std::map<std::size_t, std::string> lines_;  // that wait for an earlier one
  std::size_t next_line_ = 0;
  std::unique_ptr<ProgressLine> progress_;
};

}  // namespace comba::cli
