#include "models/causal_lm.h"

#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>

#include "base/message.h"
#include "models/family_mixers.h"
#include "models/initialization.h"
#include "models/make_mixer.h"
#include "models/model_family.h"
#include "nn/block.h"
#include "nn/int8_linear.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/linear_cross_entropy.h"
#include "nn/mixers/hgrn2.h"
#include "nn/recompute.h"
#include "nn/rms_norm.h"
#include "nn/rwkv7_block.h"

namespace comba::models {
namespace {

/// What the checkpoints of a model type call the parts of a model.
struct PartNames {
  std::string backbone = "model";
  std::string final_norm = "norm";
  nn::BlockNames block;
};

PartNames part_names(const ModelConfig& config) {
  if (config.model_type != "mamba2") return {};
  return {.backbone = "backbone", .final_norm = "norm_f", .block = {.norm = "norm", .mixer = "mixer"}};
}

std::shared_ptr<nn::Layer> make_layer(const ModelConfig& config, int64_t layer, const at::Tensor& lower_bounds,
                                      const at::TensorOptions& options) {
  if (config.model_type == "rwkv7") {
    const nn::RWKV7BlockOptions block{.mixer = rwkv7_options(config, layer),
                                      .intermediate_size = config.intermediate_size,
                                      .norm_bias = config.family.norm_bias,
                                      .is_last = layer + 1 == config.num_hidden_layers};
    return std::make_shared<nn::RWKV7Block>(block, options);
  }
  const std::shared_ptr<nn::Mixer> mixer = make_mixer(config, layer, options);
  if (auto* hgrn2 = dynamic_cast<nn::HGRN2Mixer*>(mixer.get())) hgrn2->set_lower_bounds(lower_bounds);
  return std::make_shared<nn::Block>(mixer, config.hidden_size, config.intermediate_size, config.norm_eps, options,
                                     part_names(config).block);
}

/// Parameter: weight [vocab, D].
class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t vocab_size, int64_t hidden_size, const at::TensorOptions& options)
      : weight_(register_parameter("weight", at::empty({vocab_size, hidden_size}, options))) {}

  at::Tensor forward(const at::Tensor& ids) {
    if (!is_int8()) return at::embedding(weight_, ids);
    return at::embedding(weight_, ids).to(scales_.scalar_type()) * at::embedding(scales_.unsqueeze(1), ids);
  }
  /// The output projection that is tied to it.
  at::Tensor project(const at::Tensor& x) {
    return is_int8() ? nn::int8_linear(x, weight_, scales_) : nn::linear(x, weight_);
  }
  const at::Tensor& weight() const { return weight_; }

  void round_to_int8() {
    if (is_int8()) return;
    const auto [values, scales] = nn::rounded_to_int8(weight_);
    weight_.set_requires_grad(false);
    weight_.set_data(values);
    scales_ = register_buffer("weight_scales", scales);
  }
  bool is_int8() const { return scales_.defined(); }

 private:
  at::Tensor weight_;
  at::Tensor scales_;  // [vocab], where the weight is i8
};

}  // namespace

/// What the checkpoint calls `model`: everything below the output projection.
class CausalLM::Backbone : public torch::nn::Module {
 public:
  Backbone(const ModelConfig& config, const at::TensorOptions& options)
      : embeddings_(register_module("embeddings",
                                    std::make_shared<Embedding>(config.vocab_size, config.hidden_size, options))) {
    at::Tensor lower_bounds;
    if (config.model_type == "hgrn2" && config.family.use_lower_bound) {
      lower_bounds =
          register_parameter("lower_bounds", at::empty({config.num_hidden_layers, config.hidden_size}, options));
    }
    const auto layers = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      layers_.push_back(make_layer(config, layer, lower_bounds, options));
      layers->push_back(layers_.back());
    }
    if (config.model_type == "rwkv7") {
      layer_norm_ =
          register_module("norm", std::make_shared<nn::LayerNorm>(config.hidden_size, /*num_groups=*/1, config.norm_eps,
                                                                  config.family.norm_bias, options));
    } else {
      norm_ = register_module(part_names(config).final_norm,
                              std::make_shared<nn::RMSNorm>(config.hidden_size, config.norm_eps, options));
    }
  }

  at::Tensor forward(const at::Tensor& input_ids, const nn::TokenSpan& span, ModelState* state,
                     const PassOptions& pass) {
    nn::Residual x{.stream = embeddings_->forward(input_ids), .branch = {}};  // [B, T, D]
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      LayerState* layer_state = state == nullptr ? nullptr : &state->layers[layer];
      const auto block = [=, block = layers_[layer], dtype = pass.compute_dtype](const nn::Residual& input) {
        return block->forward(input, span, layer_state, dtype);
      };
      const auto to_sum = [block](const at::Tensor& stream) { return block({stream, {}}).sum(); };
      x = pass.recompute_blocks ? nn::Residual{nn::recompute_in_backward(to_sum, x.sum()), {}} : block(x);
    }
    if (!layer_norm_) {
      return norm_->forward(x.stream, x.branch, pass.compute_dtype.value_or(x.stream.scalar_type())).normed;
    }
    const at::Tensor normed = layer_norm_->forward(x.sum());
    return pass.compute_dtype ? normed.to(*pass.compute_dtype) : normed;
  }

  ModelState initial_state(int64_t batch) const {
    ModelState state;
    for (const auto& layer : layers_) state.layers.push_back(layer->initial_state(batch));
    return state;
  }

  bool knows_positions() const {
    return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer->knows_positions(); });
  }

  Embedding& embeddings() { return *embeddings_; }

 private:
  std::shared_ptr<Embedding> embeddings_;
  std::vector<std::shared_ptr<nn::Layer>> layers_;
  std::shared_ptr<nn::RMSNorm> norm_;
  std::shared_ptr<nn::LayerNorm> layer_norm_;  // in place of it
};

CausalLM::CausalLM(const ModelConfig& config, const at::TensorOptions& options) : config_(config) {
  validate(config);
  backbone_ = register_module(part_names(config).backbone, std::make_shared<Backbone>(config, options));
  if (config.tie_word_embeddings) return;
  lm_head_ = register_module("lm_head", std::make_shared<nn::Linear>(config.hidden_size, config.vocab_size, options));
}

at::Device CausalLM::device() const { return backbone_->embeddings().weight().device(); }

void CausalLM::round_weights_to_int8() {
  for (const auto& module : modules(/*include_self=*/false)) {
    if (auto* linear = module->as<nn::Linear>()) linear->round_to_int8();
  }
  backbone_->embeddings().round_to_int8();
}

void CausalLM::initialize(uint64_t seed) { initialize_parameters(*this, config_, seed); }

at::Tensor CausalLM::hidden(const at::Tensor& input_ids, ModelState* state, const at::Tensor& cu_seqlens,
                            const PassOptions& pass) {
  require(input_ids.dim() == 2 && input_ids.scalar_type() == at::kLong, ErrorCode::invalid_argument,
          "[model] input_ids must be [B, T] i64; got ", input_ids.sizes(), " ", input_ids.scalar_type());
  require(state == nullptr || !cu_seqlens.defined(), ErrorCode::invalid_argument,
          "[model] a state cannot be carried through packed sequences; got both state and cu_seqlens");
  require(!cu_seqlens.defined() || input_ids.size(0) == 1, ErrorCode::invalid_argument,
          "[model] cu_seqlens needs B = 1; got B = ", input_ids.size(0));
  // On a GPU this check would make the host wait.
  if (input_ids.is_cpu() && input_ids.numel() > 0) {
    const auto [smallest, largest] = at::aminmax(input_ids);
    require(smallest.item<int64_t>() >= 0 && largest.item<int64_t>() < config_.vocab_size, ErrorCode::invalid_argument,
            "[model] token ids must be from 0 to ", config_.vocab_size - 1, "; got ids from ", smallest.item<int64_t>(),
            " to ", largest.item<int64_t>());
  }
  const nn::TokenSpan span{.cu_seqlens = cu_seqlens, .first_position = state == nullptr ? 0 : state->position};
  at::Tensor hidden = backbone_->forward(input_ids.to(device()), span, state, pass);
  if (state != nullptr) state->position += input_ids.size(1);
  return hidden;
}

at::Tensor CausalLM::project(const at::Tensor& hidden) {
  return lm_head_ ? lm_head_->forward(hidden) : backbone_->embeddings().project(hidden);
}

at::Tensor CausalLM::forward(const at::Tensor& input_ids, ModelState* state, const at::Tensor& cu_seqlens) {
  return project(hidden(input_ids, state, cu_seqlens));
}

at::Tensor CausalLM::next_logits(const at::Tensor& input_ids, ModelState& state) {
  return project(hidden(input_ids, &state, {}).select(1, -1));
}

at::Tensor CausalLM::loss(const at::Tensor& input_ids, const at::Tensor& labels, const at::Tensor& cu_seqlens,
                          const PassOptions& pass) {
  require(labels.sizes() == input_ids.sizes(), ErrorCode::invalid_argument,
          "[model] labels must have the shape of input_ids ", input_ids.sizes(), "; got ", labels.sizes());
  require(!backbone_->embeddings().is_int8(), ErrorCode::unsupported,
          "[model] weights must be floating-point numbers in training; got int8");
  const at::Tensor& weight = lm_head_ ? lm_head_->weight() : backbone_->embeddings().weight();
  const at::Tensor x = hidden(input_ids, /*state=*/nullptr, cu_seqlens, pass);
  return nn::linear_cross_entropy(x, weight, labels.to(x.device()));
}

bool CausalLM::knows_positions() const { return backbone_->knows_positions(); }

ModelState CausalLM::initial_state(int64_t batch) const { return backbone_->initial_state(batch); }

ModelState ModelState::clone() const {
  ModelState copy = *this;
  for (LayerState& layer : copy.layers) {
    for (at::Tensor& tensor : layer.tensors) tensor = tensor.clone();
  }
  return copy;
}

std::vector<ParameterRow> parameter_table(const ModelConfig& config) {
  std::vector<ParameterRow> rows;
  for (const auto& parameter : CausalLM(config, at::TensorOptions(at::kMeta)).named_parameters()) {
    rows.push_back({parameter.key(), parameter.value().sizes().vec(), parameter.value().numel()});
  }
  return rows;
}

}  // namespace comba::models
