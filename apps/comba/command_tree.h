#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace comba::cli {

/// What is offered where a value is to be typed.
struct ValueKind {
  bool files = false;
  bool directories = false;
  std::vector<std::string> words = {};
};

struct FlagNames {
  std::vector<std::string> names = {};  ///< "--help", "-h"
  std::string description;
  bool takes_value = false;
  ValueKind value = {};
};

/// A command and what it understands, as a completion needs it. What --help does not show is left out.
struct CommandNames {
  std::string name;  ///< from the program's on: "comba data pack"
  std::string description;
  std::vector<FlagNames> flags = {};
  bool takes_arguments = false;
  ValueKind argument = {};
  std::vector<std::string> subcommands = {};  ///< last words of their names
};

/// `program` and every command below it; a command stands before its sub-commands.
std::vector<CommandNames> list_commands(const CLI::App& program);

}  // namespace comba::cli
