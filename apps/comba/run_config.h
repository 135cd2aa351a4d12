#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "toml.h"

namespace CLI {
class App;
}

namespace comba::cli {

/// The flags of a command that takes a run file.
struct RunConfigFlags {
  std::string file;                      ///< --config
  std::vector<std::string> assignments;  ///< --set, "section.key=value"
  bool print = false;                    ///< --print-config
};

void add_run_config_flags(CLI::App& command, RunConfigFlags& flags);

/// Adds a flag that is a shorter way to say `--set key=VALUE`.
void add_setting_flag(CLI::App& command, RunConfigFlags& flags, const std::string& flag, const std::string& key,
                      const std::string& description, const std::string& value_name = "DIR");

/// Settings of a run: a TOML file of sections with keys, changed by assignments, over defaults of the program.
/// Each read() declares one key; after all of them finish() refuses what nobody declared. Every error is
/// invalid_argument and names the key, the value and where it stands, except that a file that cannot be read is io.
class RunConfig {
 public:
  explicit RunConfig(const RunConfigFlags& flags);

  /// Declares `key`, "section.name", and replaces `value`, its default, when the key is set.
  void read(const std::string& key, std::int64_t& value);
  void read(const std::string& key, double& value);  // a whole number will do
  void read(const std::string& key, bool& value);
  void read(const std::string& key, std::string& value);
  void read(const std::string& key, std::filesystem::path& value);

  /// Declares `key` and returns the list that it is set to, if it is.
  std::optional<nlohmann::ordered_json> read_list(const std::string& key);
  /// Declares all keys of a section that are not declared yet, whatever they are, and returns those that are set.
  nlohmann::ordered_json read_section(const std::string& section);
  /// What is in force of such a section in the end, for to_toml().
  void set_section(const std::string& section, nlohmann::ordered_json values);

  /// Throws for a key that was set but not declared, naming the nearest declared one.
  void finish() const;

  /// The settings in force, in the order of declaration: a run file that gives the same again.
  std::string to_toml() const;

 private:
  void assign(const std::string& assignment);
  const toml::node* find(const std::string& key) const;
  void declare(const std::string& key, nlohmann::ordered_json value);
  [[noreturn]] void reject(const std::string& key, const toml::node& node, const char* expected) const;
  template <class T>
  void read_scalar(const std::string& key, T& value, const char* expected);

  toml::table settings_;
  std::map<std::string, std::string> assigned_;  // right-hand sides of assignments as typed, by key
  std::vector<std::string> declared_;            // keys
  nlohmann::ordered_json in_force_;              // by section and name
};

}  // namespace comba::cli
