#include "evaluation/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/message.h"

namespace comba::evaluation {
namespace {

at::Tensor to_tensor(std::span<const std::int64_t> values) {
  return at::tensor(c10::ArrayRef<std::int64_t>(values.data(), values.size()), at::kLong);
}

/// Sum over tokens of -log softmax(logits)[label].  logits [1, T, vocab], labels [T]; ignored ones add nothing
double sum_of_nats(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor log_probabilities = at::log_softmax(logits.squeeze(0), 1, at::kFloat);  // [T, vocab]
  const at::Tensor here = labels.to(logits.device());
  const at::Tensor ignored = here.eq(data::kIgnoredLabel);
  const at::Tensor of_labels = log_probabilities.gather(1, here.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -of_labels.masked_fill(ignored, 0).sum(at::kDouble).item<double>();
}

/// score_document() of each window by itself.
double score_windows(models::CausalLM& model, std::span<const std::int64_t> ids, std::span<const std::int64_t> labels,
                     std::size_t window, std::int64_t chunk_length) {
  double nats = 0;
  for (std::size_t first = 0; first + 1 < ids.size(); first += window) {
    const std::size_t size = std::min(window + 1, ids.size() - first);
    nats += score_document(model, ids.subspan(first, size), chunk_length, labels.subspan(first, size));
  }
  return nats;
}

/// Bytes of the text that the labels, but for that of BOS, stand for.
std::int64_t bytes_of(const data::Tokenizer& tokenizer, const data::Document& document,
                      std::span<const std::int64_t> labels) {
  std::vector<std::int64_t> scored(labels.begin() + 1, labels.end());
  std::erase(scored, data::kIgnoredLabel);
  if (scored.size() + 1 == labels.size()) return document.num_bytes;
  return static_cast<std::int64_t>(tokenizer.decode(scored).size());
}

}  // namespace

double EvaluationResult::loss() const { return nats / static_cast<double>(tokens); }

double EvaluationResult::perplexity() const { return std::exp(loss()); }

double EvaluationResult::bits_per_byte() const { return nats / std::numbers::ln2 / static_cast<double>(bytes); }

double score_document(models::CausalLM& model, std::span<const std::int64_t> ids, std::int64_t chunk_length,
                      std::span<const std::int64_t> labels) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = to_tensor(ids);
  const at::Tensor scored = labels.empty() ? tokens : to_tensor(labels);
  const std::int64_t num_predictions = tokens.size(0) - 1;
  models::ModelState state = model.initial_state(/*batch=*/1);
  double nats = 0;
  for (std::int64_t first = 0; first < num_predictions; first += chunk_length) {
    const std::int64_t end = std::min(first + chunk_length, num_predictions);
    const at::Tensor logits = model.forward(tokens.slice(0, first, end).unsqueeze(0), &state);
    nats += sum_of_nats(logits, scored.slice(0, first + 1, end + 1));
  }
  return nats;
}

EvaluationResult evaluate(models::CausalLM& model, const data::TokenDataset& dataset,
                          const EvaluationOptions& options) {
  require(dataset.num_documents() > 0, ErrorCode::invalid_argument,
          "[evaluate] the split must have documents; got an empty one");
  require(options.chunk_length > 0, ErrorCode::invalid_argument, "[evaluate] chunk_length must be at least 1; got ",
          options.chunk_length);
  require(options.window >= 0, ErrorCode::invalid_argument, "[evaluate] window must be at least 0; got ",
          options.window);
  require(dataset.tokenizer().vocab() <= model.config().vocab_size, ErrorCode::invalid_argument,
          "[evaluate] the model's vocab_size must be at least the data set's vocabulary of ",
          dataset.tokenizer().vocab(), "; got ", model.config().vocab_size);
  EvaluationResult result;
  std::vector<std::int64_t> ids, labels;
  for (std::int64_t i = 0; i < dataset.num_documents(); ++i) {
    const data::Document document = dataset.document(i);
    ids.resize(static_cast<std::size_t>(document.num_tokens));
    labels.resize(ids.size());
    dataset.read_tokens(document.first_token, ids);
    options.score_prompts ? dataset.read_tokens(document.first_token, labels)
                          : dataset.read_labels(document.first_token, labels);
    const double nats = options.window > 0 ? score_windows(model, ids, labels, static_cast<std::size_t>(options.window),
                                                           options.chunk_length)
                                           : score_document(model, ids, options.chunk_length, labels);
    const std::int64_t skipped = std::count(labels.begin() + 1, labels.end(), data::kIgnoredLabel);
    const EvaluationResult score{.nats = nats,
                                 .tokens = document.num_tokens - 1 - skipped,
                                 .bytes = bytes_of(dataset.tokenizer(), document, labels),
                                 .skipped_tokens = skipped,
                                 .documents = 1};
    result.nats += score.nats;
    result.tokens += score.tokens;
    result.bytes += score.bytes;
    result.skipped_tokens += score.skipped_tokens;
    ++result.documents;
    if (options.on_document) options.on_document(document, score);
  }
  require(result.tokens > 0, ErrorCode::invalid_argument,
          "[evaluate] there must be tokens to score; got only prompts, which count when prompts are scored");
  return result;
}

}  // namespace comba::evaluation
