#include "command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

namespace comba::cli {
namespace {

/// "bytes|FILE" is the word `bytes`, or a file.
ValueKind kind_of(const std::string& type_name) {
  ValueKind kind;
  std::istringstream alternatives(type_name);
  for (std::string alternative; std::getline(alternatives, alternative, '|');) {
    const bool is_word = std::ranges::all_of(
        alternative, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
    if (alternative == "FILE" || alternative == "PATH") {
      kind.files = true;
    } else if (alternative == "DIR") {
      kind.directories = true;
    } else if (is_word) {
      kind.words.push_back(alternative);
    }
  }
  return kind;
}

FlagNames flag_names(const CLI::Option& option) {
  FlagNames flag{.description = option.get_description(),
                 .takes_value = option.get_items_expected_max() > 0,
                 .value = kind_of(option.get_type_name())};
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  return flag;
}

void add_command(const CLI::App& app, const std::string& name, std::vector<CommandNames>& commands) {
  CommandNames command{.name = name, .description = app.get_description()};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // not shown by --help
    if (option->nonpositional()) {
      command.flags.push_back(flag_names(*option));
    } else {
      command.takes_arguments = true;
      command.argument = kind_of(option->get_type_name());
    }
  }
  const std::vector<const CLI::App*> below = app.get_subcommands({});
  for (const CLI::App* subcommand : below) command.subcommands.push_back(subcommand->get_name());
  commands.push_back(std::move(command));
  for (const CLI::App* subcommand : below) add_command(*subcommand, name + ' ' + subcommand->get_name(), commands);
}

}  // namespace

std::vector<CommandNames> list_commands(const CLI::App& program) {
  std::vector<CommandNames> commands;
  add_command(program, program.get_name(), commands);
  return commands;
}

}  // namespace comba::cli
