#include "evaluation/evaluate.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numbers>
#include <vector>

#include "base/message.h"

namespace comba::evaluation {
namespace {

at::Tensor to_tensor(std::span<const std::int64_t> values) {
  return at::tensor(c10::ArrayRef<std::int64_t>(values.data(), values.size()), at::kLong);
}

/// -log softmax(logits)[label] of each token, 0 where that is ignored.  logits [1, T, vocab], labels [T] -> [T] f32
at::Tensor token_nats(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor log_probabilities = at::log_softmax(logits.squeeze(0), 1, at::kFloat);  // [T, vocab]
  const at::Tensor here = labels.to(logits.device());
  const at::Tensor ignored = here.eq(data::kIgnoredLabel);
  const at::Tensor of_labels = log_probabilities.gather(1, here.clamp_min(0).unsqueeze(1)).squeeze(1);
  return of_labels.neg().masked_fill(ignored, 0);
}

/// Forward passes of several sequences, none of which sees another.
class SharedPass {
 public:
  explicit SharedPass(models::CausalLM& model) : model_(model) {}

  std::int64_t num_tokens() const { return borders_.back(); }

  /// ids [T + 1] and labels [T + 1] of a sequence: what it costs is added to `nats` by the next run().
  void add(std::span<const std::int64_t> ids, std::span<const std::int64_t> labels, double& nats) {
    ids_.insert(ids_.end(), ids.begin(), ids.end() - 1);
    labels_.insert(labels_.end(), labels.begin() + 1, labels.end());
    borders_.push_back(static_cast<std::int64_t>(ids_.size()));
    nats_.push_back(&nats);
  }

  void run() {
    if (nats_.empty()) return;
    const at::Tensor cu_seqlens = nats_.size() > 1 ? to_tensor(borders_).to(model_.device()) : at::Tensor();
    const at::Tensor logits = model_.forward(to_tensor(ids_).unsqueeze(0), /*state=*/nullptr, cu_seqlens);
    const at::Tensor nats = token_nats(logits, to_tensor(labels_)).to(at::kCPU);  // [T]
    for (std::size_t n = 0; n < nats_.size(); ++n) {
      *nats_[n] += nats.slice(0, borders_[n], borders_[n + 1]).sum(at::kDouble).item<double>();
    }
    ids_.clear();
    labels_.clear();
    borders_.resize(1);
    nats_.clear();
  }

 private:
  models::CausalLM& model_;
  std::vector<std::int64_t> ids_, labels_;  // of all sequences
  std::vector<std::int64_t> borders_ = {0};
  std::vector<double*> nats_;  // of each sequence
};

/// Bytes of the text that the labels, but for that of BOS, stand for.
std::int64_t bytes_of(const data::Tokenizer& tokenizer, const data::Document& document,
                      std::span<const std::int64_t> labels) {
  std::vector<std::int64_t> scored(labels.begin() + 1, labels.end());
  std::erase(scored, data::kIgnoredLabel);
  if (scored.size() + 1 == labels.size()) return document.num_bytes;
  return static_cast<std::int64_t>(tokenizer.decode(scored).size());
}

constexpr std::int64_t kLeastTokens = 2048;

/// Tokens that keep the device busy.
std::int64_t usual_pass_tokens(const models::CausalLM& model) {
  constexpr std::int64_t kMostTokens = 16384, kMostLogits = std::int64_t{1} << 26;  // 256 MiB in fp32
  if (model.device().is_cpu()) return kLeastTokens;
  return std::clamp(kMostLogits / model.config().vocab_size, kLeastTokens, kMostTokens);
}

/// Documents one after the other; short ones wait for the pass that they share.
class Evaluation {
 public:
  Evaluation(models::CausalLM& model, const data::TokenDataset& dataset, const EvaluationOptions& options)
      : model_(model), dataset_(dataset), options_(options), pass_(model) {
    pass_tokens_ = options.pass_tokens > 0 ? options.pass_tokens : usual_pass_tokens(model);
    // Attention needs memory for each pair of a token and one that it sees.
    longest_ = model.knows_positions() ? std::min(pass_tokens_, kLeastTokens) : pass_tokens_;
  }

  void add(const data::Document& document) {
    std::vector<std::int64_t> ids(static_cast<std::size_t>(document.num_tokens)), labels(ids.size());
    dataset_.read_tokens(document.first_token, ids);
    options_.score_prompts ? dataset_.read_tokens(document.first_token, labels)
                           : dataset_.read_labels(document.first_token, labels);
    const std::int64_t skipped = std::count(labels.begin() + 1, labels.end(), data::kIgnoredLabel);
    waiting_.push_back({document,
                        {.nats = 0,
                         .tokens = document.num_tokens - 1 - skipped,
                         .bytes = bytes_of(dataset_.tokenizer(), document, labels),
                         .skipped_tokens = skipped,
                         .documents = 1}});
    const std::size_t window = options_.window > 0 ? static_cast<std::size_t>(options_.window) : ids.size();
    for (std::size_t first = 0; first + 1 < ids.size(); first += window) {
      const std::size_t size = std::min(window + 1, ids.size() - first);
      add_sequence(std::span(ids).subspan(first, size), std::span(labels).subspan(first, size));
    }
  }

  EvaluationResult finish() {
    pass_.run();
    tell_of_all_but(0);
    return total_;
  }

 private:
  struct Waiting {
    data::Document document;
    EvaluationResult score;  // its nats grow with each pass
  };

  /// Of the document that came last.
  void add_sequence(std::span<const std::int64_t> ids, std::span<const std::int64_t> labels) {
    const auto num_predictions = static_cast<std::int64_t>(ids.size()) - 1;
    double& nats = waiting_.back().score.nats;
    if (num_predictions > longest_ || pass_.num_tokens() + num_predictions > pass_tokens_) {
      pass_.run();
      tell_of_all_but(1);
    }
    if (num_predictions > longest_) {
      nats += score_document(model_, ids, longest_, labels);
    } else {
      pass_.add(ids, labels, nats);
    }
  }

  void tell_of_all_but(std::size_t last) {
    for (; waiting_.size() > last; waiting_.pop_front()) {
      const auto& [document, score] = waiting_.front();
      total_.nats += score.nats;
      total_.tokens += score.tokens;
      total_.bytes += score.bytes;
      total_.skipped_tokens += score.skipped_tokens;
      ++total_.documents;
      if (options_.on_document) options_.on_document(document, score);
    }
  }

  models::CausalLM& model_;
  const data::TokenDataset& dataset_;
  const EvaluationOptions& options_;
  std::int64_t pass_tokens_, longest_;
  SharedPass pass_;
  std::deque<Waiting> waiting_;  // read, and not all scored: elements stay where they are
  EvaluationResult total_;
};

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
    nats += token_nats(logits, scored.slice(0, first + 1, end + 1)).sum(at::kDouble).item<double>();
  }
  return nats;
}

EvaluationResult evaluate(models::CausalLM& model, const data::TokenDataset& dataset,
                          const EvaluationOptions& options) {
  require(dataset.num_documents() > 0, ErrorCode::invalid_argument,
          "[evaluate] the split must have documents; got an empty one");
  require(options.pass_tokens >= 0, ErrorCode::invalid_argument, "[evaluate] pass_tokens must be at least 0; got ",
          options.pass_tokens);
  require(options.window >= 0, ErrorCode::invalid_argument, "[evaluate] window must be at least 0; got ",
          options.window);
  require(dataset.tokenizer().vocab() <= model.config().vocab_size, ErrorCode::invalid_argument,
          "[evaluate] the model's vocab_size must be at least the data set's vocabulary of ",
          dataset.tokenizer().vocab(), "; got ", model.config().vocab_size);
  const at::NoGradGuard no_grad;
  Evaluation evaluation(model, dataset, options);
  for (std::int64_t i = 0; i < dataset.num_documents(); ++i) evaluation.add(dataset.document(i));
  const EvaluationResult result = evaluation.finish();
  require(result.tokens > 0, ErrorCode::invalid_argument,
          "[evaluate] there must be tokens to score; got only prompts, which count when prompts are scored");
  return result;
}

}  // namespace comba::evaluation
