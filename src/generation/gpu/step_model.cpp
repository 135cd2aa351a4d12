#include "generation/gpu/step_model.h"

#include <algorithm>

#include "base/message.h"
#include "nn/block.h"
#include "nn/mixers/comba.h"

namespace comba::generation {
namespace {

using model_step::kTileColumns;
using model_step::kTileRows;

/// The mixers of a model, in the order of its layers; null for one that is not of this family.
std::vector<const nn::CombaMixer*> mixers_of(models::CausalLM& model) {
  std::vector<const nn::CombaMixer*> mixers;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    if (const auto* mixer = dynamic_cast<const nn::Mixer*>(module.get())) {
      mixers.push_back(dynamic_cast<const nn::CombaMixer*>(mixer));
    }
  }
  return mixers;
}

model_step::Dims dims_of(const models::ModelConfig& config, const nn::CombaOptions& mixer) {
  const auto gate = mixer.gate_function == GateFunction::silu ? model_step::Gate::silu : model_step::Gate::sigmoid;
  return {.D = config.hidden_size,
          .H = mixer.num_heads,
          .HV = mixer.num_v_heads,
          .K = mixer.head_k_dim,
          .V = mixer.head_v_dim,
          .F = config.intermediate_size,
          .W = mixer.use_short_conv ? mixer.conv_size : 0,
          .vocab = config.vocab_size,
          .norm_eps = static_cast<float>(config.norm_eps),
          .gate = mixer.use_output_gate ? gate : model_step::Gate::none,
          .delta_rule = mixer.delta_rule};
}

/// A matrix with zeros behind its rows and columns.
at::Tensor zero_padded(const at::Tensor& matrix, std::int64_t rows, std::int64_t columns) {
  return at::constant_pad_nd(matrix, {0, columns - matrix.size(1), 0, rows - matrix.size(0)});
}

/// Undefined where the model has none of this name.
at::Tensor parameter(const StepModel::Parameters& parameters, const std::string& name) {
  const at::Tensor* found = parameters.find(name);
  return found == nullptr ? at::Tensor() : found->detach();
}

/// A matrix that takes in what an RMSNorm gives, with the weight of the norm.
at::Tensor behind_norm(const at::Tensor& matrix, const at::Tensor& norm) {
  return (matrix.to(at::kFloat) * norm.to(at::kFloat)).to(at::kBFloat16);
}

/// Rows of two matrices in turn, 8 of each.  [F, D], [F, D] -> [2 F, D], F padded to 8
at::Tensor interleaved(const at::Tensor& first, const at::Tensor& second) {
  const std::int64_t rows = model_step::padded(first.size(0), 8), columns = first.size(1);
  const auto by_eight = [&](const at::Tensor& x) { return zero_padded(x, rows, columns).view({-1, 8, columns}); };
  return at::stack({by_eight(first), by_eight(second)}, /*dim=*/1).view({-1, columns});
}

}  // namespace

std::string step_refusal(models::CausalLM& model) {
  if (!model.device().is_cuda()) return concat("the model must be on a GPU; it is on ", model.device());
  for (const auto& parameter : model.named_parameters()) {
    if (parameter.value().scalar_type() != at::kBFloat16) {
      return concat("the weights must be bf16; ", parameter.key(), " is ", parameter.value().scalar_type());
    }
  }
  const auto mixers = mixers_of(model);
  const auto num_layers = static_cast<std::size_t>(model.config().num_hidden_layers);
  if (mixers.size() != num_layers) return "every layer must have a mixer of the Comba and Gated DeltaNet family";
  for (std::size_t layer = 0; layer < mixers.size(); ++layer) {
    if (mixers[layer] == nullptr) {
      return concat("every layer must be of the Comba and Gated DeltaNet family; layer ", layer, " is not");
    }
  }
  return model_step::refusal(dims_of(model.config(), mixers.at(0)->options()));
}

at::Tensor packed(const at::Tensor& weight) {
  const std::int64_t rows = model_step::padded(weight.size(0), kTileRows);
  const std::int64_t columns = model_step::padded(weight.size(1), kTileColumns);
  return zero_padded(weight, rows, columns)
      .view({rows / kTileRows, 2, 8, columns / kTileColumns, 4, 8})
      .permute({0, 3, 1, 2, 4, 5})
      .contiguous();
}

at::Tensor state_slices(const at::Tensor& state) {
  return state.unflatten(-1, {-1, model_step::kStateColumns}).transpose(-3, -2).contiguous();
}

at::Tensor state_of_slices(const at::Tensor& slices) { return slices.transpose(-3, -2).flatten(-2); }

bf16* StepModel::keep_bf16(const at::Tensor& tensor) {
  return reinterpret_cast<bf16*>(kept_.emplace_back(tensor.to(at::kBFloat16).contiguous()).mutable_data_ptr());
}

const float* StepModel::keep_floats(const at::Tensor& tensor) {
  if (!tensor.defined()) return nullptr;
  return kept_.emplace_back(tensor.to(at::kFloat).contiguous()).const_data_ptr<float>();
}

model_step::PackedMatrix StepModel::keep_packed(const at::Tensor& weight) {
  return {.data = keep_bf16(packed(weight)), .rows = weight.size(0), .columns = weight.size(1)};
}

StepModel::StepModel(models::CausalLM& model, std::int64_t num_slots, std::int64_t drawn_vocab,
                     at::ScalarType state_dtype)
    : options_(model.parameters().front().options().requires_grad(false)), state_dtype_(state_dtype) {
  const std::string reason = step_refusal(model);
  require(reason.empty(), ErrorCode::unsupported, "[generate] the GPU cannot step this model as one graph: ", reason);
  const auto& config = model.config();
  const Parameters parameters = model.named_parameters();
  step.dims = dims_of(config, mixers_of(model).at(0)->options());
  step.dims.state = state_dtype == at::kFloat ? DType::f32 : DType::bf16;
  step.num_slots = num_slots;
  step.max_rows = model_step::padded(num_slots, 8);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    add_layer(parameters, layer);
  }
  const at::Tensor embedding = parameter(parameters, "model.embeddings.weight");
  step.embedding = keep_bf16(embedding);
  step.head = keep_packed(behind_norm(config.tie_word_embeddings ? embedding : parameter(parameters, "lm_head.weight"),
                                      parameter(parameters, "model.norm.weight")));
  add_memory(drawn_vocab);
}

void StepModel::add_layer(const Parameters& parameters, std::int64_t number) {
  const model_step::Dims& x = step.dims;
  const auto weight = [&](const std::string& name) {
    return parameter(parameters, concat("model.layers.", number, '.', name));
  };
  std::vector<at::Tensor> in;
  for (const char* name : {"q_proj", "k_proj", "v_proj", "g_proj", "b_proj", "a_proj"}) {
    const at::Tensor part = weight(concat("attn.", name, ".weight"));
    if (part.defined()) in.push_back(part);
  }
  model_step::Layer layer = {
      .in = keep_packed(behind_norm(at::cat(in), weight("attn_norm.weight"))),
      .taps = nullptr,
      .b = nullptr,
      .d = keep_floats(weight("attn.D")),
      .A_log = keep_floats(weight("attn.A_log")),
      .dt_bias = keep_floats(weight("attn.dt_bias")),
      .head_norm = keep_bf16(weight("attn.o_norm.weight")),
      .out = keep_packed(weight("attn.o_proj.weight")),
      .gate_up = {},
      .down = {},
      .state = nullptr,
      .tails = nullptr,
  };
  if (const at::Tensor decay = weight("attn.decay"); decay.defined()) {
    layer.b = keep_floats(at::sigmoid(decay.to(at::kFloat)));
  }
  states.push_back(at::zeros({step.num_slots, x.HV, x.V / model_step::kStateColumns, x.K, model_step::kStateColumns},
                             options_.dtype(state_dtype_)));
  layer.state = states.back().mutable_data_ptr();
  if (x.W > 0) {
    const at::Tensor filters = at::cat(
        {weight("attn.q_conv1d.weight"), weight("attn.k_conv1d.weight"), weight("attn.v_conv1d.weight")});  // [C, 1, W]
    layer.taps = keep_bf16(filters.squeeze(1).t());
    tails.push_back(at::zeros({step.num_slots, x.W - 1, x.channels()}, options_));
    layer.tails = reinterpret_cast<bf16*>(tails.back().mutable_data_ptr());
  }
  if (x.F > 0) {
    layer.gate_up = keep_packed(behind_norm(interleaved(weight("mlp.gate_proj.weight"), weight("mlp.up_proj.weight")),
                                            weight("mlp_norm.weight")));
    layer.down = keep_packed(weight("mlp.down_proj.weight"));
  }
  step.layers.push_back(layer);
}

void StepModel::add_memory(std::int64_t drawn_vocab) {
  const model_step::Dims& x = step.dims;
  const auto i32 = options_.dtype(at::kInt), f32 = options_.dtype(at::kFloat);
  const auto activations = [&](std::int64_t width) {
    return keep_bf16(at::zeros({step.max_rows, model_step::padded(width, kTileColumns)}, options_));
  };
  step.drawn_vocab = drawn_vocab;
  step.max_window = model_step::kMostRecent;
  slots = at::full({step.max_rows}, -1, i32);
  tokens = at::zeros({step.num_slots}, i32);
  sampling =
      at::zeros({step.num_slots, static_cast<std::int64_t>(sizeof(model_step::Sampling))}, options_.dtype(at::kByte));
  recent = at::zeros({step.num_slots, step.max_window}, i32);
  drawn = at::zeros({2, step.max_rows}, at::TensorOptions(at::kInt).pinned_memory(true));
  logits = at::zeros({step.max_rows, model_step::padded(x.vocab, kTileRows)}, f32);
  const at::Tensor counter = kept_.emplace_back(at::zeros({1}, i32));
  const at::Tensor squares = kept_.emplace_back(at::zeros({step.max_rows, x.HV, 16}, f32));
  step.slots = slots.mutable_data_ptr<std::int32_t>();
  step.tokens = tokens.mutable_data_ptr<std::int32_t>();
  step.sampling = static_cast<model_step::Sampling*>(sampling.mutable_data_ptr());
  step.recent = recent.mutable_data_ptr<std::int32_t>();
  step.counter = counter.mutable_data_ptr<std::int32_t>();
  step.drawn = drawn.mutable_data_ptr<std::int32_t>();
  step.residual = activations(x.D);
  step.projected = activations(x.projections());
  step.mixed = activations(x.value_channels());
  step.squares = squares.mutable_data_ptr<float>();
  step.inner = activations(std::max<std::int64_t>(x.F, 1));
  step.logits = logits.mutable_data_ptr<float>();
}

models::ModelState StepModel::read_state(std::int64_t slot) const {
  const model_step::Dims& x = step.dims;
  models::ModelState state;
  for (std::size_t layer = 0; layer < states.size(); ++layer) {
    auto& tensors = state.layers.emplace_back().tensors;
    if (x.W > 0) {
      for (const at::Tensor& tail :
           tails[layer].narrow(0, slot, 1).split({x.key_channels(), x.key_channels(), x.value_channels()}, 2)) {
        tensors.push_back(tail.clone(at::MemoryFormat::Contiguous));
      }
    }
    tensors.push_back(
        state_of_slices(states[layer].narrow(0, slot, 1).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)));
  }
  return state;
}

void StepModel::write_state(std::int64_t slot, const models::ModelState& state) {
  for (std::size_t layer = 0; layer < states.size(); ++layer) {
    const auto& tensors = state.layers[layer].tensors;
    states[layer].narrow(0, slot, 1).copy_(state_slices(tensors.back()));
    if (step.dims.W > 0) {
      tails[layer].narrow(0, slot, 1).copy_(at::cat({tensors[0], tensors[1], tensors[2]}, /*dim=*/2));
    }
  }
}

}  // namespace comba::generation
