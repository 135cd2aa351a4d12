#include "generation/generate.h"

#include <algorithm>

#include "base/message.h"
#include "generation/decoder.h"
#include "generation/gpu/generate_on_gpu.h"
#include "generation/read_prompt.h"
#include "generation/stopwatch.h"
#include "models/read_tokens.h"

namespace comba::generation {
namespace {

void check_options(const models::CausalLM& model, const GenerateOptions& options) {
  const std::int64_t rows = model.config().vocab_size;
  require(options.vocab >= 0 && options.vocab <= rows, ErrorCode::invalid_argument,
          "[generate] vocab must be from 0 to the model's vocab_size of ", rows, "; got ", options.vocab);
  require(options.max_tokens >= 0, ErrorCode::invalid_argument, "[generate] max_tokens must be at least 0; got ",
          options.max_tokens);
  require(options.batch_size > 0, ErrorCode::invalid_argument, "[generate] batch_size must be at least 1; got ",
          options.batch_size);
  require(options.chunk_length > 0, ErrorCode::invalid_argument, "[generate] chunk_length must be at least 1; got ",
          options.chunk_length);
}

void check_prompt(const models::CausalLM& model, const Prompt& prompt) {
  const std::int64_t rows = model.config().vocab_size;
  require(!prompt.tokens.empty() || prompt.after != nullptr, ErrorCode::invalid_argument,
          "[generate] a prompt must have at least one token; got none");
  for (const std::int64_t id : prompt.tokens) {
    require(id >= 0 && id < rows, ErrorCode::invalid_argument,
            "[generate] a prompt's ids must be from 0 to below the model's vocab_size of ", rows, "; got ", id);
  }
}

/// One call of generate().
class Run {
 public:
  Run(models::CausalLM& model, std::span<const Prompt> prompts, const GenerateOptions& options,
      const GenerateEvents& events)
      : model_(model),
        prompts_(prompts),
        options_(options),
        events_(events),
        vocab_(options.vocab > 0 ? options.vocab : model.config().vocab_size),
        decoder_(model),
        results_(prompts.size()) {}

  std::vector<Continuation> complete() {
    std::size_t next = 0;
    while (next < prompts_.size() || !rows_.empty()) {
      while (next < prompts_.size() && decoder_.num_rows() < options_.batch_size) start(next++);
      const std::vector<std::int64_t> tokens = draw();
      if (!tokens.empty()) decoder_.step(tokens);
    }
    return std::move(results_);
  }

 private:
  struct Row {
    std::size_t text;
    TokenSampler sampler;
    Clock::time_point start;
  };

  /// Reads a prompt and makes it the last row.
  void start(std::size_t text) {
    const Clock::time_point start = Clock::now();
    Row row{.text = text, .sampler = TokenSampler(options_.sampling), .start = {}};
    const ReadPrompt read =
        read_prompt(model_, prompts_[text], options_.chunk_length, row.sampler, [&](std::int64_t tokens) {
          if (events_.on_read) events_.on_read(text, tokens);
        });
    decoder_.add(read.state, read.next_logits);
    row.start = Clock::now();
    results_[text].seconds_reading = seconds_since(start);
    rows_.push_back(std::move(row));
  }

  /// The next token of each row that goes on. The others end.
  std::vector<std::int64_t> draw() {
    std::vector<std::int64_t> tokens;
    for (std::size_t row = 0; row < rows_.size();) {
      if (const auto finish = draw(rows_[row])) {
        end(row, *finish);
      } else {
        tokens.push_back(results_[rows_[row].text].tokens.back());
        ++row;
      }
    }
    return tokens;
  }

  /// Draws one token, or says why there is none to be read.
  std::optional<Finish> draw(Row& row) {
    Continuation& result = results_[row.text];
    const auto num_tokens = [&] { return static_cast<std::int64_t>(result.tokens.size()); };
    const auto index = static_cast<std::int64_t>(&row - rows_.data());
    if (num_tokens() >= options_.max_tokens) return Finish::length;
    const std::int64_t token = row.sampler.sample(decoder_.next_logits(index).first(static_cast<std::size_t>(vocab_)));
    if (token == options_.stop_token) return Finish::stop_token;
    result.tokens.push_back(token);
    if (events_.on_token && !events_.on_token(row.text, token)) return Finish::callback;
    if (num_tokens() == options_.max_tokens && !options_.keep_states) return Finish::length;  // nobody reads on
    return std::nullopt;
  }

  void end(std::size_t index, Finish finish) {
    const auto row_number = static_cast<std::int64_t>(index);
    const Row row = std::move(rows_[index]);
    Continuation& result = results_[row.text];
    result.finish = finish;
    result.seconds_generating = seconds_since(row.start);
    if (options_.keep_states) result.state = state_after(row, row_number, finish);
    rows_.erase(rows_.begin() + row_number);
    decoder_.remove(row_number);
    if (events_.on_end) events_.on_end(row.text, result);
  }

  TextState state_after(const Row& row, std::int64_t row_number, Finish finish) {
    const auto logits = decoder_.next_logits(row_number);
    TextState state{.model = decoder_.state(row_number),
                    .next_logits = at::tensor(c10::ArrayRef<float>(logits.data(), logits.size())),
                    .recent_tokens = row.sampler.recent()};
    if (finish == Finish::callback) {  // its last token has been drawn and not read
      const std::int64_t last = results_[row.text].tokens.back();
      state.next_logits = models::read_tokens(model_, {&last, 1}, state.model, /*chunk_length=*/1);
    }
    if (finish == Finish::stop_token && !state.recent_tokens.empty()) state.recent_tokens.pop_back();  // not part of it
    return state;
  }

  models::CausalLM& model_;
  std::span<const Prompt> prompts_;
  const GenerateOptions& options_;
  const GenerateEvents& events_;
  std::int64_t vocab_;
  Decoder decoder_;
  std::vector<Row> rows_;  // of the decoder
  std::vector<Continuation> results_;
};

}  // namespace

std::vector<Continuation> generate(models::CausalLM& model, std::span<const Prompt> prompts,
                                   const GenerateOptions& options, const GenerateEvents& events) {
  const at::NoGradGuard no_grad;
  check_options(model, options);
  for (const Prompt& prompt : prompts) check_prompt(model, prompt);
  if (model.device().is_cuda() && gpu_refusal(model, options).empty()) {
    return generate_on_gpu(model, prompts, options, events);
  }
  return Run(model, prompts, options, events).complete();
}

}  // namespace comba::generation
