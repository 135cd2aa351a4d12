#include "training/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/message.h"
#include "training/document_borders.h"
#include "training/learning_rate.h"

namespace comba::training {
namespace {

std::vector<NamedParameter> parameters_of(const models::CausalLM& model) {
  std::vector<NamedParameter> parameters;
  for (const auto& item : model.named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

std::optional<at::ScalarType> compute_dtype(const TrainConfig& config) {
  return config.dtype == "bf16" ? std::optional(at::kBFloat16) : std::nullopt;
}

const TrainConfig& validated(const TrainConfig& config) {
  validate(config);
  return config;
}

}  // namespace

Trainer::Trainer(std::shared_ptr<models::CausalLM> model, const Mixture& dataset, const TrainConfig& config,
                 distributed::ProcessGroup& group)
    : model_(std::move(model)),
      dataset_(dataset),
      config_(validated(config)),
      group_(group),
      sampler_(dataset, config.context_length, static_cast<std::uint64_t>(config.seed)),
      parameters_(parameters_of(*model_), group),
      optimizer_(parameters_.own(), {.beta1 = config.beta1,
                                     .beta2 = config.beta2,
                                     .epsilon = config.epsilon,
                                     .weight_decay = config.weight_decay}) {
  require(dataset.tokenizer().vocab() <= model_->config().vocab_size, ErrorCode::invalid_argument,
          "[Trainer] the model's vocab_size must be at least the data set's vocabulary of ",
          dataset.tokenizer().vocab(), "; got ", model_->config().vocab_size);
  require(config_.batch_size % group_.size() == 0, ErrorCode::invalid_argument,
          "[Trainer] batch_size must be a multiple of the number of processes (", group_.size(), "); got ",
          config_.batch_size);
  parameters_.broadcast_values();
}

StepReport Trainer::step() {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t step = num_steps();
  model_->zero_grad();
  const double loss = accumulate_gradients(step);
  parameters_.reduce_gradients();
  const double gradient_norm = clip_gradient_norm(parameters_.own(), config_.max_gradient_norm, group_);
  require(std::isfinite(loss) && std::isfinite(gradient_norm), ErrorCode::numerical,
          "[Trainer] loss and gradient must be finite; got loss ", loss, " and gradient norm ", gradient_norm,
          " in step ", step + 1, " (a lower learning_rate or a longer warm-up may help)");
  const double rate = learning_rate(config_, step);
  optimizer_.step(rate);
  parameters_.gather_values();

  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return {.step = step + 1,
          .loss = loss,
          .learning_rate = rate,
          .gradient_norm = gradient_norm,
          .tokens = (step + 1) * config_.batch_size * config_.context_length,
          .seconds = elapsed.count()};
}

double Trainer::accumulate_gradients(std::int64_t step) {
  const std::int64_t labels_of_step = num_labels(dataset_, sampler_, step * config_.batch_size, config_.batch_size);
  require(labels_of_step > 0, ErrorCode::invalid_argument,
          "[Trainer] a step must have tokens to learn; got only prompts in step ", step + 1,
          " (a larger batch_size or context_length helps)");
  const std::int64_t share = config_.batch_size / group_.size();
  const std::int64_t micro_batch_size = config_.micro_batch_size > 0 ? config_.micro_batch_size : share;
  const std::int64_t first_sample = step * config_.batch_size + group_.rank() * share;
  double loss = 0;
  for (std::int64_t done = 0; done < share; done += micro_batch_size) {
    loss += accumulate_gradients(first_sample + done, std::min(micro_batch_size, share - done), labels_of_step);
  }
  at::Tensor sum = at::full({1}, loss, at::kDouble);
  group_.all_reduce_sum(sum);
  return sum.item<double>();
}

double Trainer::accumulate_gradients(std::int64_t first_sample, std::int64_t num_samples, std::int64_t labels_of_step) {
  const std::int64_t labels = num_labels(dataset_, sampler_, first_sample, num_samples);
  if (labels == 0) return 0;  // the mean over none is no number
  const Batch batch = read_batch(dataset_, sampler_, first_sample, num_samples);
  const double share = static_cast<double>(labels) / static_cast<double>(labels_of_step);
  const at::Tensor loss = loss_of(batch) * share;
  loss.backward();
  return loss.item<double>();
}

at::Tensor Trainer::loss_of(const Batch& batch) {
  const models::PassOptions pass{.compute_dtype = compute_dtype(config_), .recompute_blocks = config_.recompute_blocks};
  if (!config_.reset_at_documents) return model_->loss(batch.input_ids, batch.labels, /*cu_seqlens=*/{}, pass);
  const at::Tensor cu_seqlens = document_borders(batch.input_ids, dataset_.tokenizer().bos());
  return model_->loss(batch.input_ids.view({1, -1}), batch.labels.view({1, -1}), cu_seqlens, pass);
}

}  // namespace comba::training
