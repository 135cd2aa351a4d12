#include "ablation_settings.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/message.h"
#include "base/nearest_name.h"

namespace comba::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVariantForm =
    "[config] an entry of ablation.variants must be {name = \"NAME\", model = {KEY = VALUE, ...}, paper = {NAME = "
    "NUMBER, ...}}, the last two if wanted; got ";

bool is_variant(const Json& entry) {
  const auto is_table = [&](const char* key) { return !entry.contains(key) || entry[key].is_object(); };
  return entry.is_object() && entry.contains("name") && entry["name"].is_string() && is_table("model") &&
         is_table("paper") && std::ranges::all_of(entry.items(), [](const auto& item) {
           return item.key() == "name" || item.key() == "model" || item.key() == "paper";
         });
}

ablation::Variant read_variant(const Json& entry, const Json& base) {
  require(is_variant(entry), ErrorCode::invalid_argument, kVariantForm, entry.dump());
  const Json changes = entry.value("model", Json::object());
  ablation::Variant variant = ablation::make_variant(entry["name"].get<std::string>(), base.dump(), changes.dump());
  variant.paper = entry.value("paper", Json::object()).dump();
  return variant;
}

std::vector<ablation::Variant> read_variants(RunConfig& config, const Json& base) {
  const auto list = config.read_list("ablation.variants");
  require(list && !list->empty(), ErrorCode::invalid_argument,
          "[ablation] needs variants, [[ablation.variants]] in the file of --config; got none");
  std::vector<ablation::Variant> variants;
  for (const Json& entry : *list) variants.push_back(read_variant(entry, base));
  return variants;
}

std::vector<std::int64_t> read_seeds(RunConfig& config) {
  const auto list = config.read_list("ablation.seeds");
  if (!list) return {1, 2, 3};
  std::vector<std::int64_t> seeds;
  for (const Json& seed : *list) {
    require(seed.is_number_integer(), ErrorCode::invalid_argument,
            "[config] ablation.seeds must be whole numbers; got ", seed.dump());
    seeds.push_back(seed.get<std::int64_t>());
  }
  return seeds;
}

/// Keeps the named variants, and the first one, with which they are compared.
void choose(std::vector<ablation::Variant>& variants, const std::vector<std::string>& chosen) {
  if (chosen.empty()) return;
  std::vector<std::string> names;
  names.reserve(variants.size());
  for (const ablation::Variant& variant : variants) names.push_back(variant.name);
  for (const std::string& name : chosen) {
    require(std::ranges::find(names, name) != names.end(), ErrorCode::invalid_argument,
            "[ablation] there is no variant '", name, "'; the nearest is '", nearest_name(name, names), "'");
  }
  std::erase_if(variants, [&](const ablation::Variant& variant) {
    return variant.name != names.front() && std::ranges::find(chosen, variant.name) == chosen.end();
  });
}

std::filesystem::path read_directory(RunConfig& config, const char* key, const char* flag) {
  std::filesystem::path path;
  config.read(key, path);
  require(!path.empty(), ErrorCode::invalid_argument, "[ablation] needs ", flag, " DIR, or ", key,
          " in the file of --config");
  return path;
}

}  // namespace

AblationSettings read_ablation_settings(RunConfig& config, const std::vector<std::string>& chosen_variants,
                                        const std::vector<std::int64_t>& chosen_seeds) {
  AblationSettings settings;
  Json base = config.read_section("model");
  base.emplace("model_type", "comba");
  if (base["model_type"] == "comba") base.emplace("comba_convention", "paper");
  ablation::Ablation& ablation = settings.ablation;
  training::for_each_field(ablation.train, [&](const char* name, auto& value, training::Effect) {
    config.read(std::string("train.") + name, value);
  });
  config.read("ablation.points", ablation.points);
  config.read("ablation.heldout_windows", ablation.heldout.windows);
  config.read("ablation.heldout_batch_size", ablation.heldout.batch_size);
  config.read("ablation.recall_length", ablation.heldout.recall_length);
  ablation.seeds = read_seeds(config);  // what is wrong in the file is told, chosen ones or not
  if (!chosen_seeds.empty()) ablation.seeds = chosen_seeds;
  ablation.variants = read_variants(config, base);
  choose(ablation.variants, chosen_variants);
  settings.data = read_directory(config, "data.path", "--data");
  settings.output = read_directory(config, "output.path", "--out");
  config.finish();
  return settings;
}

}  // namespace comba::cli
