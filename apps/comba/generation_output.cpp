#include "generation_output.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "comba/error.h"
#include "format.h"

namespace comba::cli {
namespace {

void print_now(std::string_view text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

std::string as_utf8(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.feed(bytes);
  return text += stream.finish();
}

const char* name_of(generation::Finish finish, bool stop_string_found) {
  switch (finish) {
    case generation::Finish::length:
      return "length";
    case generation::Finish::stop_token:
      return "end";
    case generation::Finish::callback:
      return stop_string_found ? "stop" : "interrupted";
  }
  throw Error(ErrorCode::internal, "[generate] unknown finish");
}

}  // namespace

GenerationOutput::GenerationOutput(const GenerationOutputOptions& options, const StopFlag& stop)
    : options_(options), stop_(stop) {}

generation::GenerateEvents GenerationOutput::events() {
  return {
      .on_read = [this](std::size_t text, std::int64_t tokens) { on_read(text, tokens); },
      .on_token = [this](std::size_t text, std::int64_t token) { return on_token(text, token); },
      .on_end = [this](std::size_t text, const generation::Continuation& continuation) { on_end(text, continuation); },
  };
}

void GenerationOutput::on_read(std::size_t index, std::int64_t tokens) {
  if (stop_.requested()) throw Error(ErrorCode::interrupted, "[generate] stopped by a signal");
  const auto total = static_cast<std::int64_t>(options_.prompts[index].tokens.size());
  if (tokens == total) {
    progress_.reset();
  } else {
    if (!progress_) progress_ = std::make_unique<ProgressLine>();
    progress_->update(fmt::format("read {} of {} tokens", format_count(tokens), format_count(total)));
  }
}

/// Before the first token.
void GenerationOutput::show_prompt(Text& text, std::size_t index) {
  if (!text.begun && !options_.as_json && options_.echo) show(text, options_.texts[index]);
}

/// The text of a generated token. Some tokenizers put a space before a document, which is none of its text.
std::string GenerationOutput::decode(std::size_t index, std::int64_t token, bool is_first) const {
  const generation::Prompt& prompt = options_.prompts[index];
  const bool starts_document = is_first && prompt.after == nullptr && prompt.tokens.size() == 1;  // BOS
  return starts_document ? options_.tokenizer.decode(std::array{prompt.tokens[0], token})
                         : options_.tokenizer.decode({&token, 1});
}

void GenerationOutput::show(Text& text, std::string_view bytes) {
  const std::string whole = text.utf8.feed(bytes);
  if (options_.as_json) {
    text.shown += whole;
  } else {
    print_now(whole);
  }
}

bool GenerationOutput::on_token(std::size_t index, std::int64_t token) {
  Text& text = texts_.try_emplace(index, Text{generation::StopStrings(options_.stop_strings)}).first->second;
  show_prompt(text, index);
  show(text, text.stop.feed(decode(index, token, /*is_first=*/!text.begun)));
  text.begun = true;
  return !text.stop.found() && !stop_.requested();
}

void GenerationOutput::on_end(std::size_t index, const generation::Continuation& continuation) {
  Text& text = texts_.try_emplace(index, Text{generation::StopStrings(options_.stop_strings)}).first->second;
  show_prompt(text, index);
  show(text, text.stop.finish());
  text.shown += text.utf8.finish();
  if (options_.as_json) {
    lines_[index] = to_json(index, continuation);
    for (auto line = lines_.find(next_line_); line != lines_.end(); line = lines_.find(++next_line_)) {
      print_now(line->second + '\n');
      lines_.erase(line);
    }
  } else {
    print_now(text.shown + '\n');
  }
  texts_.erase(index);
}

std::string GenerationOutput::to_json(std::size_t index, const generation::Continuation& continuation) const {
  const Text& text = texts_.at(index);
  const auto num_tokens = static_cast<double>(continuation.tokens.size());
  nlohmann::ordered_json json;
  json["index"] = index;
  json["prompt"] = as_utf8(options_.texts[index]);
  json["text"] = text.shown;
  json["prompt_tokens"] = options_.prompts[index].tokens.size();
  json["tokens"] = continuation.tokens.size();
  json["finish"] = name_of(continuation.finish, text.stop.found());
  json["seconds"] = continuation.seconds_reading + continuation.seconds_generating;
  json["tokens_per_second"] = num_tokens > 0 ? num_tokens / continuation.seconds_generating : 0.0;
  return json.dump();
}

}  // namespace comba::cli
