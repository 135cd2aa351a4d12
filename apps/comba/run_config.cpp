#include "run_config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <sstream>

#include "base/file.h"
#include "base/message.h"
#include "base/nearest_name.h"

namespace comba::cli {
namespace {

constexpr auto kUsage = ErrorCode::invalid_argument;

/// A value as the right-hand side of a key. JSON's texts, numbers and truth values are TOML's too; toml++ itself would
/// print 0.1 as 0.10000000000000001.
std::string toml_text(const nlohmann::ordered_json& value) {
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [name, member] : value.items()) {
    if (member.is_null()) continue;  // TOML says it by leaving the key out
    text += text.empty() ? "" : ", ";
    text += value.is_object() ? name + " = " + toml_text(member) : toml_text(member);
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

/// "run.toml, line 3", or the assignment itself.
std::string place_of(const toml::source_region& source) {
  const std::string path = source.path ? *source.path : std::string("?");
  return path.starts_with("--set") ? path : concat(path, ", line ", source.begin.line);
}

/// Puts everything of `changes` over what `settings` has.
void merge(toml::table& settings, toml::table&& changes) {
  for (auto&& [key, node] : changes) {
    toml::node* present = settings.get(key);
    if (present != nullptr && present->is_table() && node.is_table()) {
      merge(*present->as_table(), std::move(*node.as_table()));
    } else {
      settings.insert_or_assign(key, std::move(node));
    }
  }
}

nlohmann::ordered_json to_json(const toml::node& node) {
  std::ostringstream text;
  text << toml::json_formatter(node);
  return nlohmann::ordered_json::parse(text.str());
}

}  // namespace

void add_run_config_flags(CLI::App& command, RunConfigFlags& flags) {
  command.add_option("--config", flags.file, "Run file in TOML")->type_name("FILE");
  command.add_option("--set", flags.assignments, "Change one setting of the run file; may be repeated")
      ->type_name("SECTION.KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);
  command.add_flag("--print-config", flags.print, "Print the settings in force as TOML, and end");
}

void add_setting_flag(CLI::App& command, RunConfigFlags& flags, const std::string& flag, const std::string& key,
                      const std::string& description, const std::string& value_name) {
  const auto assign = [&flags, key](const std::string& value) { flags.assignments.push_back(concat(key, '=', value)); };
  command.add_option_function<std::string>(flag, assign, description)->type_name(value_name);
}

RunConfig::RunConfig(const RunConfigFlags& flags) {
  if (!flags.file.empty()) {
    const std::string text = read_file(flags.file);
    try {
      settings_ = toml::parse(text, flags.file);
    } catch (const toml::parse_error& error) {
      throw Error(kUsage, concat("[config] ", place_of(error.source()), ": ", error.description()));
    }
  }
  for (const std::string& assignment : flags.assignments) assign(assignment);
}

void RunConfig::assign(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  const std::string key = assignment.substr(0, equals);
  const auto legal = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.'; };
  require(
      equals != std::string::npos && key.find('.') != std::string::npos && std::all_of(key.begin(), key.end(), legal),
      kUsage, "[config] --set takes SECTION.KEY=VALUE; got '", assignment, "'");
  const std::string value = assignment.substr(equals + 1);
  const std::string place = "--set " + assignment;
  const auto parse = [&](const std::string& text) { return toml::parse(concat(key, " = ", text), place); };
  toml::table change;
  try {
    change = parse(value);
  } catch (const toml::parse_error&) {
    try {
      change = parse(toml_text(value));  // a text without quotes
    } catch (const toml::parse_error& error) {
      throw Error(kUsage, concat("[config] ", place, ": ", error.description()));
    } catch (const nlohmann::json::exception&) {
      throw Error(kUsage, concat("[config] ", key, " must be text in UTF-8; got '", value, "'"));
    }
  }
  merge(settings_, std::move(change));
  assigned_[key] = value;
}

const toml::node* RunConfig::find(const std::string& key) const { return settings_.at_path(key).node(); }

void RunConfig::declare(const std::string& key, nlohmann::ordered_json value) {
  const std::size_t dot = key.find('.');
  in_force_[key.substr(0, dot)][key.substr(dot + 1)] = std::move(value);
  declared_.push_back(key);
}

void RunConfig::reject(const std::string& key, const toml::node& node, const char* expected) const {
  std::ostringstream type;
  type << node.type();
  throw Error(kUsage, concat("[config] ", key, " must be ", expected, "; got ", to_json(node).dump(), " (", type.str(),
                             "; ", place_of(node.source()), ")"));
}

template <class T>
void RunConfig::read_scalar(const std::string& key, T& value, const char* expected) {
  if (const toml::node* node = find(key)) {
    const bool whole_for_real = std::is_same_v<T, double> && node->is_integer();
    const std::optional<T> found = whole_for_real || node->is<T>() ? node->value<T>() : std::nullopt;
    if (!found) reject(key, *node, expected);
    value = *found;
  }
  declare(key, value);
}

void RunConfig::read(const std::string& key, std::int64_t& value) { read_scalar(key, value, "a whole number"); }
void RunConfig::read(const std::string& key, double& value) { read_scalar(key, value, "a number"); }
void RunConfig::read(const std::string& key, bool& value) { read_scalar(key, value, "true or false"); }

void RunConfig::read(const std::string& key, std::string& value) {
  const toml::node* node = find(key);
  const auto typed = assigned_.find(key);
  // On a command line 2024 and true are texts too, where a text is wanted.
  if (node != nullptr && typed != assigned_.end() && !node->is_string()) {
    value = typed->second;
    declare(key, value);
    return;
  }
  read_scalar(key, value, "a text in quotes");
}

void RunConfig::read(const std::string& key, std::filesystem::path& value) {
  std::string text = value.string();
  read(key, text);
  value = text;
}

std::optional<nlohmann::ordered_json> RunConfig::read_list(const std::string& key) {
  const toml::node* node = find(key);
  if (node == nullptr) {
    declared_.push_back(key);
    return std::nullopt;
  }
  if (!node->is_array()) reject(key, *node, "a list");
  nlohmann::ordered_json list = to_json(*node);
  declare(key, list);
  return list;
}

nlohmann::ordered_json RunConfig::read_section(const std::string& section) {
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  const toml::table* table = settings_[section].as_table();
  if (table == nullptr) return result;
  for (auto&& [name, node] : *table) {
    const std::string key = concat(section, '.', name.str());
    if (std::find(declared_.begin(), declared_.end(), key) != declared_.end()) continue;
    result[std::string(name.str())] = to_json(node);
    declare(key, to_json(node));
  }
  return result;
}

void RunConfig::set_section(const std::string& section, nlohmann::ordered_json values) {
  in_force_[section] = std::move(values);
}

void RunConfig::finish() const {
  for (auto&& [section, node] : settings_) {
    const std::string section_name(section.str());
    const toml::table* table = node.as_table();
    if (table == nullptr) reject(section_name, node, "a section, as [train] is");
    for (auto&& [name, value] : *table) {
      const std::string key = concat(section_name, '.', name.str());
      require(std::find(declared_.begin(), declared_.end(), key) != declared_.end(), kUsage,
              "[config] there is no key ", key, " (", place_of(value.source()), "); the nearest is ",
              nearest_name(key, declared_));
    }
  }
}

std::string RunConfig::to_toml() const {
  std::string text;
  for (const auto& [section, values] : in_force_.items()) {
    text += concat(text.empty() ? "" : "\n", '[', section, "]\n");
    for (const auto& [name, value] : values.items()) text += concat(name, " = ", toml_text(value), '\n');
  }
  return text;
}

}  // namespace comba::cli
