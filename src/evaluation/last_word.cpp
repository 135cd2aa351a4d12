#include "evaluation/last_word.h"

#include <string_view>

#include "base/message.h"
#include "evaluation/continuation.h"

namespace comba::evaluation {

LastWordResult score_last_words(models::CausalLM& model, const data::Tokenizer& tokenizer,
                                std::span<const std::string> texts,
                                const std::function<void(std::int64_t done)>& on_text) {
  require(!texts.empty(), ErrorCode::invalid_argument, "[last_word] there must be at least one text; got none");
  LastWordResult result;
  for (const std::string& text : texts) {
    ++result.texts;
    const std::size_t space = text.rfind(' ');
    require(space != std::string::npos && space > 0 && space + 1 < text.size(), ErrorCode::invalid_argument,
            "[last_word] a text must be some words, a space and a last word; got '", text, "' (text ", result.texts,
            ")");
    const std::string_view context = std::string_view(text).substr(0, space);
    const std::vector<std::int64_t> word =
        continuation_tokens(tokenizer, context, std::string_view(text).substr(space));
    const ContinuationScore score = score_continuations(model, context_tokens(tokenizer, context), {&word, 1})[0];
    result.correct += score.is_likeliest;
    result.nats += score.nats;
    if (on_text) on_text(result.texts);
  }
  return result;
}

}  // namespace comba::evaluation
