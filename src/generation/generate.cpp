#include "generation/generate.h"

#include "base/message.h"
#include "generation/continuations.h"
#include "generation/decoder.h"
#include "generation/gpu/generate_on_gpu.h"
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
      : model_(model), options_(options), texts_(model, prompts, options, events), decoder_(model) {}

  std::vector<Continuation> complete() {
    std::size_t next = 0;
    while (next < texts_.size() || !rows_.empty()) {
      while (next < texts_.size() && decoder_.num_rows() < options_.batch_size) start(next++);
      const std::vector<std::int64_t> tokens = draw();
      if (!tokens.empty()) decoder_.step(tokens);
    }
    return texts_.take();
  }

 private:
  struct Row {
    std::size_t text;
    TokenSampler sampler;
  };

  /// Reads a prompt and makes it the last row.
  void start(std::size_t text) {
    Row row{.text = text, .sampler = TokenSampler(options_.sampling)};
    const ReadPrompt read = texts_.read(text, row.sampler);
    decoder_.add(read.state, read.next_logits);
    rows_.push_back(std::move(row));
  }

  /// The next token of each row that goes on. The others end.
  std::vector<std::int64_t> draw() {
    std::vector<std::int64_t> tokens;
    for (std::size_t row = 0; row < rows_.size();) {
      if (const auto finish = draw(rows_[row])) {
        end(row, *finish);
      } else {
        tokens.push_back(texts_[rows_[row].text].tokens.back());
        ++row;
      }
    }
    return tokens;
  }

  /// Draws one token, or says why there is none to be read.
  std::optional<Finish> draw(Row& row) {
    if (texts_.is_complete(row.text)) return Finish::length;
    const auto logits = decoder_.next_logits(static_cast<std::int64_t>(&row - rows_.data()));
    return texts_.accept(row.text, row.sampler.sample(texts_.drawable(logits)));
  }

  void end(std::size_t index, Finish finish) {
    const auto row_number = static_cast<std::int64_t>(index);
    const Row row = std::move(rows_[index]);
    if (options_.keep_states) texts_[row.text].state = state_after(row, row_number, finish);
    rows_.erase(rows_.begin() + row_number);
    decoder_.remove(row_number);
    texts_.end(row.text, finish);
  }

  TextState state_after(const Row& row, std::int64_t row_number, Finish finish) {
    const auto logits = decoder_.next_logits(row_number);
    TextState state{.model = decoder_.state(row_number),
                    .next_logits = at::tensor(c10::ArrayRef<float>(logits.data(), logits.size())),
                    .recent_tokens = row.sampler.recent()};
    if (finish == Finish::callback) {  // its last token has been drawn and not read
      const std::int64_t last = texts_[row.text].tokens.back();
      state.next_logits = models::read_tokens(model_, {&last, 1}, state.model, /*chunk_length=*/1);
    }
    if (finish == Finish::stop_token && !state.recent_tokens.empty()) state.recent_tokens.pop_back();  // not part of it
    return state;
  }

  models::CausalLM& model_;
  const GenerateOptions& options_;
  Continuations texts_;
  Decoder decoder_;
  std::vector<Row> rows_;  // of the decoder
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
