#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

namespace comba::training {

/// How a model is trained. The defaults are the paper's recipe for small runs; configs/*.toml hold whole runs.
struct TrainConfig {
  std::int64_t steps = 1000;             ///< optimizer steps
  std::int64_t batch_size = 8;           ///< sequences a step
  std::int64_t micro_batch_size = 0;     ///< sequences a forward and backward pass, a divisor of batch_size; 0: all
  std::int64_t context_length = 2048;    ///< tokens a sequence
  double learning_rate = 3e-4;           ///< peak
  std::int64_t warmup_steps = 100;       ///< steps of linear warm-up
  double final_learning_rate = 0.1;      ///< the cosine ends at this fraction of the peak
  double beta1 = 0.9;                    ///< AdamW, first moment
  double beta2 = 0.95;                   ///< AdamW, second moment
  double epsilon = 1e-8;                 ///< AdamW, added to the root of the second moment
  double weight_decay = 0.01;            ///< AdamW, on matrices only
  std::string dtype = "fp32";            ///< of matrix products: "fp32", or "bf16" with fp32 weights, norms and loss
  bool reset_at_documents = false;       ///< no token sees one of another document; else a window is one long text
  bool recompute_blocks = false;         ///< compute each block again in the backward pass: less memory, a third slower
  double max_gradient_norm = 1.0;        ///< clip the global norm of the gradients to this
  std::int64_t seed = 1;                 ///< of the initial weights and of the order of the data
  std::int64_t evaluation_interval = 0;  ///< steps between evaluations on the held-out split; 0: none
  std::int64_t checkpoint_interval = 0;  ///< steps between checkpoints; 0: only the last step is saved
  std::int64_t keep_checkpoints = 2;     ///< older ones are removed, but for the best on held-out text
  std::int64_t sample_interval = 0;      ///< steps between sampled texts; 0: none
  std::int64_t sample_tokens = 200;      ///< length of a sampled text, at most
  std::string sample_prompt = {};  ///< what a sampled text begins with; empty: only the mark of a document's start
};

/// Whether a field changes the bits of the result: then a resumed run must have the same value.
enum class Effect : std::uint8_t { trajectory, bookkeeping };

/// Calls `visit(name, value, effect)` for each field, in the order of declaration. The one list of fields: files,
/// command lines and comparisons are made from it.
template <class Config, class Visit>
requires std::is_same_v<std::remove_const_t<Config>, TrainConfig>
void for_each_field(Config& config, Visit&& visit) {
  visit("steps", config.steps, Effect::trajectory);
  visit("batch_size", config.batch_size, Effect::trajectory);
  visit("micro_batch_size", config.micro_batch_size, Effect::trajectory);
  visit("context_length", config.context_length, Effect::trajectory);
  visit("learning_rate", config.learning_rate, Effect::trajectory);
  visit("warmup_steps", config.warmup_steps, Effect::trajectory);
  visit("final_learning_rate", config.final_learning_rate, Effect::trajectory);
  visit("beta1", config.beta1, Effect::trajectory);
  visit("beta2", config.beta2, Effect::trajectory);
  visit("epsilon", config.epsilon, Effect::trajectory);
  visit("weight_decay", config.weight_decay, Effect::trajectory);
  visit("dtype", config.dtype, Effect::trajectory);
  visit("reset_at_documents", config.reset_at_documents, Effect::trajectory);
  visit("recompute_blocks", config.recompute_blocks, Effect::bookkeeping);
  visit("max_gradient_norm", config.max_gradient_norm, Effect::trajectory);
  visit("seed", config.seed, Effect::trajectory);
  visit("evaluation_interval", config.evaluation_interval, Effect::bookkeeping);
  visit("checkpoint_interval", config.checkpoint_interval, Effect::bookkeeping);
  visit("keep_checkpoints", config.keep_checkpoints, Effect::bookkeeping);
  visit("sample_interval", config.sample_interval, Effect::bookkeeping);
  visit("sample_tokens", config.sample_tokens, Effect::bookkeeping);
  visit("sample_prompt", config.sample_prompt, Effect::bookkeeping);
}

/// Throws Error(invalid_argument) naming the first field whose value makes no sense.
void validate(const TrainConfig& config);

/// One flat JSON object, numbers in a form that reads back to the same bits.
std::string to_json(const TrainConfig& config);

/// The inverse of to_json: every field must be there, and nothing else. Throws Error(io) naming the key.
TrainConfig parse_train_config(const std::string& json_text);

/// "learning_rate 0.001 became 0.002" for the first field with Effect::trajectory that differs; empty when none does.
std::string trajectory_difference(const TrainConfig& saved, const TrainConfig& wanted);

}  // namespace comba::training
