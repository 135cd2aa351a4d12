#include "generation/state_file.h"

#include <charconv>

#include "base/message.h"
#include "data/md5.h"
#include "models/safetensors.h"

namespace comba::generation {
namespace {

using models::Metadata;
using models::NamedTensors;

constexpr const char* kFormat = "comba text state 1";

std::string tensor_name(std::size_t layer, std::size_t i) { return concat("layers.", layer, '.', i); }

/// A few elements of every parameter: a step of training changes them, and the rest need not be read.
std::string weights_digest(models::CausalLM& model) {
  constexpr std::int64_t kElements = 64;
  data::Md5 md5;
  for (const auto& parameter : model.named_parameters()) {
    const at::Tensor flat = parameter.value().detach().flatten();
    const at::Tensor start = flat.narrow(0, 0, std::min(kElements, flat.numel())).to(at::kCPU, at::kFloat).contiguous();
    md5.update(parameter.key().data(), parameter.key().size());
    md5.update(start.const_data_ptr(), start.nbytes());
  }
  return data::to_hex(md5.finish());
}

/// What a state must share with those who read it.
Metadata identity(models::CausalLM& model, const std::string& tokenizer_json) {
  return {
      {"format", kFormat},
      {"model_configuration_md5", data::to_hex(data::md5(models::to_json(model.config())))},
      {"model_weights_md5", weights_digest(model)},
      {"tokenizer_md5", data::to_hex(data::md5(tokenizer_json))},
  };
}

std::string value_of(const Metadata& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "nothing" : found->second;
}

void require_same(const Metadata& expected, const Metadata& metadata, const std::filesystem::path& path) {
  require(value_of(metadata, "format") == kFormat, ErrorCode::io, "[state] '", path.string(),
          "' must be a text state, with the format '", kFormat, "'; got ", value_of(metadata, "format"));
  const auto same = [&](const char* key, const char* rule) {
    require(value_of(metadata, key) == expected.at(key), ErrorCode::invalid_argument, "[state] ", rule, "; got ", key,
            ' ', value_of(metadata, key), ", not ", expected.at(key), " (", path.string(), ")");
  };
  same("model_configuration_md5", "the state must be of this model, and its configuration is another");
  same("model_weights_md5", "the state must be of this model, and its weights are others");
  same("tokenizer_md5", "the state must be of this tokenizer");
}

/// A copy of a tensor of the file, which must have the dtype and the sizes of `like`; what attention remembers may have
/// any length.
at::Tensor take(const NamedTensors& tensors, const std::string& name, const at::Tensor& like,
                const std::filesystem::path& path) {
  const auto found = tensors.find(name);
  require(found != tensors.end(), ErrorCode::io, "[state] '", path.string(), "' must hold ", name, "; got nothing");
  const at::Tensor& tensor = found->second;
  bool fits = tensor.scalar_type() == like.scalar_type() && tensor.dim() == like.dim();
  for (std::int64_t i = 0; fits && i < like.dim(); ++i) fits = tensor.size(i) == like.size(i) || like.size(i) == 0;
  require(fits, ErrorCode::io, "[state] '", path.string(), "' must hold ", like.sizes(), ' ', like.scalar_type(),
          "; got ", tensor.sizes(), ' ', tensor.scalar_type(), " (", name, ")");
  return tensor.clone().to(like.device());
}

std::int64_t parse_position(const std::string& text, const std::filesystem::path& path) {
  std::int64_t position = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), position);
  require(error == std::errc() && end == text.data() + text.size() && position > 0, ErrorCode::io, "[state] '",
          path.string(), "': position must be a number above 0; got ", text);
  return position;
}

std::vector<std::int64_t> parse_recent(const at::Tensor& tokens, std::int64_t vocab,
                                       const std::filesystem::path& path) {
  std::vector<std::int64_t> ids(tokens.const_data_ptr<std::int64_t>(),
                                tokens.const_data_ptr<std::int64_t>() + tokens.numel());
  for (const std::int64_t id : ids) {
    require(id >= 0 && id < vocab, ErrorCode::io, "[state] '", path.string(), "': recent_tokens must be below ", vocab,
            "; got ", id);
  }
  return ids;
}

}  // namespace

std::int64_t TextState::num_bytes() const {
  auto bytes = static_cast<std::int64_t>(next_logits.nbytes());
  for (const auto& layer : model.layers) {
    for (const at::Tensor& tensor : layer.tensors) bytes += static_cast<std::int64_t>(tensor.nbytes());
  }
  return bytes;
}

void save_state(const TextState& state, models::CausalLM& model, const std::string& tokenizer_json,
                const std::filesystem::path& path) {
  NamedTensors tensors = {{"next_logits", state.next_logits},
                          {"recent_tokens", at::tensor(state.recent_tokens, at::kLong)}};
  for (std::size_t layer = 0; layer < state.model.layers.size(); ++layer) {
    const auto& layer_tensors = state.model.layers[layer].tensors;
    for (std::size_t i = 0; i < layer_tensors.size(); ++i) tensors[tensor_name(layer, i)] = layer_tensors[i];
  }
  Metadata metadata = identity(model, tokenizer_json);
  metadata["position"] = std::to_string(state.model.position);
  models::write_safetensors(path, tensors, metadata);
}

TextState load_state(models::CausalLM& model, const std::string& tokenizer_json, const std::filesystem::path& path) {
  const models::SafetensorsFile file = models::read_safetensors(path);
  require_same(identity(model, tokenizer_json), file.metadata, path);
  const std::int64_t vocab = model.config().vocab_size;
  TextState state{.model = model.initial_state(/*batch=*/1), .next_logits = {}, .recent_tokens = {}};
  state.model.position = parse_position(value_of(file.metadata, "position"), path);
  for (std::size_t layer = 0; layer < state.model.layers.size(); ++layer) {
    auto& layer_tensors = state.model.layers[layer].tensors;
    for (std::size_t i = 0; i < layer_tensors.size(); ++i) {
      layer_tensors[i] = take(file.tensors, tensor_name(layer, i), layer_tensors[i], path);
    }
  }
  state.next_logits = take(file.tensors, "next_logits", at::empty({vocab}, at::kFloat), path);
  state.recent_tokens = parse_recent(take(file.tensors, "recent_tokens", at::empty({0}, at::kLong), path), vocab, path);
  return state;
}

}  // namespace comba::generation
