#include "models/checkpoint.h"

#include "base/file.h"
#include "base/message.h"
#include "models/weight_files.h"

namespace comba::models {
namespace {

constexpr const char* kConfigFile = "config.json";

/// "a, b, c and 5 more"
std::string list(const std::vector<std::string>& names) {
  constexpr size_t kMostNamed = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMostNamed); ++i) text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kMostNamed) text += concat(" and ", names.size() - kMostNamed, " more");
  return text;
}

void require_none(const std::vector<std::string>& names, const char* rule, const std::filesystem::path& path) {
  require(names.empty(), ErrorCode::invalid_argument, "[checkpoint] ", rule, "; got ", list(names), " (", path.string(),
          ")");
}

/// A tied model may come with a copy of its embedding under the name of the output projection.
void drop_tied_copy(NamedTensors& tensors, const ModelConfig& config, const std::filesystem::path& path) {
  const auto copy = tensors.find("lm_head.weight");
  const std::string name = config.model_type == "mamba2" ? "backbone.embeddings.weight" : "model.embeddings.weight";
  const auto original = tensors.find(name);
  if (!config.tie_word_embeddings || copy == tensors.end() || original == tensors.end()) return;
  require(at::equal(copy->second, original->second), ErrorCode::invalid_argument,
          "[checkpoint] lm_head.weight must equal ", name, ", since tie_word_embeddings is true (", path.string(), ")");
  tensors.erase(copy);
}

}  // namespace

void load_weights(CausalLM& model, const std::filesystem::path& directory) {
  NamedTensors tensors = read_weight_files(directory);
  drop_tied_copy(tensors, model.config(), directory);
  std::vector<std::string> missing, misshapen;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (auto& parameter : model.named_parameters()) {
    const auto found = tensors.find(parameter.key());
    if (found == tensors.end()) {
      missing.push_back(parameter.key());
      continue;
    }
    const at::Tensor source = found->second;
    tensors.erase(found);
    const bool fits = source.sizes() == parameter.value().sizes() && at::isFloatingType(source.scalar_type());
    if (!fits) {
      misshapen.push_back(
          concat(parameter.key(), " ", source.sizes(), " ", source.scalar_type(), " for ", parameter.value().sizes()));
    }
    copies.emplace_back(parameter.value(), source);
  }
  std::vector<std::string> unknown;
  for (const auto& [name, tensor] : tensors) unknown.push_back(name);
  require_none(missing, "the weights must hold every tensor of the model; missing", directory);
  require_none(unknown, "the weights must hold no tensor that the model has not", directory);
  require_none(misshapen, "each tensor must have the shape that config.json says, and floating elements", directory);

  const torch::NoGradGuard no_grad;
  for (auto& [parameter, source] : copies) parameter.copy_(source);
}

std::shared_ptr<CausalLM> load_model(const std::filesystem::path& directory) {
  auto model = std::make_shared<CausalLM>(load_model_config(directory / kConfigFile));
  try {
    load_weights(*model, directory);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_argument) throw;
    throw Error(ErrorCode::io, error.what());  // files of one directory that contradict each other
  }
  return model;
}

void save_model(const CausalLM& model, const std::filesystem::path& directory, std::int64_t shard_bytes) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  require(!error, ErrorCode::io, "[checkpoint] cannot make the directory ", directory.string(), ": ", error.message());
  NamedTensors tensors;
  for (const auto& parameter : model.named_parameters()) tensors[parameter.key()] = parameter.value();
  write_weight_files(directory, tensors, shard_bytes);
  // Last, so that a directory with a config.json is a complete one.
  write_file_atomically(directory / kConfigFile, to_json(model.config()));
}

}  // namespace comba::models
