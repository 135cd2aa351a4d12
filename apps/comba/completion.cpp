#include "completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "command_tree.h"

namespace comba::cli {
namespace {

constexpr const char* kBash = R"(# Completion of comba for bash: made by `comba completion bash`.
_comba() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command=comba i
  local words= flags= directories= files=
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "$command ${{COMP_WORDS[i]}}" in
      {subcommands}) command+=" ${{COMP_WORDS[i]}}" ;;
      {value_flags}) ((++i)) ;;
    esac
  done
  # --flag=value comes as three words.
  if [[ $current == "=" ]]; then
    current=
  elif [[ $previous == "=" ]]; then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  case "$command $previous" in
{values}    *)
      case "$command" in
{commands}      esac
      ;;
  esac
  COMPREPLY=()
  [[ $current == -* || -z $words$directories$files ]] && words+=" $flags"
  [[ -n $words ]] && mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ -n $files$directories && $current != -* ]]; then
    local kind=-f paths
    [[ -n $files ]] || kind=-d
    mapfile -t paths < <(compgen "$kind" -- "$current")
    COMPREPLY+=("${{paths[@]}}")
    compopt -o filenames 2> /dev/null
  fi
  return 0
}}
complete -F _comba comba
)";

constexpr const char* kZsh = R"(#compdef comba
# Completion of comba for zsh: made by `comba completion zsh`.
_comba() {{
  local command=comba previous=${{words[CURRENT-1]}}
  local -i i
  local -a flags subcommands
  for ((i = 2; i < CURRENT; ++i)); do
    case "$command ${{words[i]}}" in
      ({subcommands}) command+=" ${{words[i]}}" ;;
      ({value_flags}) ((++i)) ;;
    esac
  done
  if [[ $PREFIX == --*=* ]]; then
    previous=${{PREFIX%%=*}}
    compset -P '*='
  fi
  case "$command $previous" in
{values}  esac
  case "$command" in
{commands}  esac
}}
if [[ ${{funcstack[1]}} == _comba ]]; then
  _comba "$@"
else
  compdef _comba comba
fi
)";

constexpr const char* kFish = R"(# Completion of comba for fish: made by `comba completion fish`.
function __comba_command
    set -l command comba
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
        else if contains -- "$command $word" {subcommands}
            set command "$command $word"
        else if contains -- "$command $word" {value_flags}
            set skip 1
        end
    end
    echo $command
end
complete -c comba -f
)";

/// 'text' for a shell, in which `quote` stands for a quotation mark within.
std::string quoted(const std::string& text, const char* quote = R"('\'')") {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? quote : std::string(1, c);
  return result + "'";
}

/// The command line's words that lead to a sub-command, and those that a value follows.
struct WordLists {
  std::vector<std::string> subcommands, value_flags;
};

WordLists word_lists(const std::vector<CommandNames>& commands) {
  WordLists lists;
  for (const CommandNames& command : commands) {
    for (const std::string& name : command.subcommands) lists.subcommands.push_back(quoted(command.name + ' ' + name));
    for (const FlagNames& flag : command.flags) {
      if (!flag.takes_value) continue;
      for (const std::string& name : flag.names) lists.value_flags.push_back(quoted(command.name + ' ' + name));
    }
  }
  return lists;
}

/// The patterns of a case that matches any of a flag's names.
std::string flag_patterns(const CommandNames& command, const FlagNames& flag) {
  std::vector<std::string> patterns;
  for (const std::string& name : flag.names) patterns.push_back(quoted(command.name + ' ' + name));
  return fmt::format("{}", fmt::join(patterns, " | "));
}

std::string bash_assignments(const ValueKind& kind) {
  std::string text;
  if (!kind.words.empty()) text += fmt::format("words='{}' ", fmt::join(kind.words, " "));
  if (kind.files) text += "files=1 ";
  if (kind.directories) text += "directories=1 ";
  return text;
}

std::string zsh_paths(const ValueKind& kind) {
  if (kind.files) return "_files; ";
  return kind.directories ? "_files -/; " : "";
}

/// 'name:description', where a colon within is escaped.
std::string zsh_entry(const std::string& name, const std::string& description) {
  std::string text;
  for (const char c : description) text += c == ':' ? std::string("\\:") : std::string(1, c);
  return quoted(name + ':' + text);
}

const CommandNames& named(const std::vector<CommandNames>& commands, const std::string& name) {
  return *std::ranges::find(commands, name, &CommandNames::name);
}

}  // namespace

std::string bash_completion(const CLI::App& program) {
  const std::vector<CommandNames> tree = list_commands(program);
  std::string values, commands;
  for (const CommandNames& command : tree) {
    ValueKind argument = command.argument;
    argument.words.insert(argument.words.end(), command.subcommands.begin(), command.subcommands.end());
    std::vector<std::string> flags;
    for (const FlagNames& flag : command.flags) {
      flags.insert(flags.end(), flag.names.begin(), flag.names.end());
      if (!flag.takes_value) continue;
      values += fmt::format("    {}) {};;\n", flag_patterns(command, flag), bash_assignments(flag.value));
    }
    commands += fmt::format("        {}) {}flags='{}' ;;\n", quoted(command.name), bash_assignments(argument),
                            fmt::join(flags, " "));
  }
  const WordLists lists = word_lists(tree);
  return fmt::format(fmt::runtime(kBash), fmt::arg("subcommands", fmt::join(lists.subcommands, " | ")),
                     fmt::arg("value_flags", fmt::join(lists.value_flags, " | ")), fmt::arg("values", values),
                     fmt::arg("commands", commands));
}

std::string zsh_completion(const CLI::App& program) {
  const std::vector<CommandNames> tree = list_commands(program);
  std::string values, commands;
  for (const CommandNames& command : tree) {
    std::vector<std::string> flags, subcommands;
    for (const FlagNames& flag : command.flags) {
      for (const std::string& name : flag.names) flags.push_back(zsh_entry(name, flag.description));
      if (!flag.takes_value) continue;
      const std::string words =
          flag.value.words.empty() ? "" : fmt::format("compadd -- {}; ", fmt::join(flag.value.words, " "));
      values += fmt::format("    ({}) {}{}return ;;\n", flag_patterns(command, flag), words, zsh_paths(flag.value));
    }
    for (const std::string& name : command.subcommands) {
      subcommands.push_back(zsh_entry(name, named(tree, command.name + ' ' + name).description));
    }
    commands += fmt::format("    ({})\n      flags=({})\n      subcommands=({})\n", quoted(command.name),
                            fmt::join(flags, " "), fmt::join(subcommands, " "));
    commands += "      [[ $PREFIX == -* ]] && _describe -o flag flags\n";
    if (!subcommands.empty()) commands += "      _describe command subcommands\n";
    if (command.takes_arguments) commands += fmt::format("      {}\n", zsh_paths(command.argument));
    commands += "      ;;\n";
  }
  const WordLists lists = word_lists(tree);
  return fmt::format(fmt::runtime(kZsh), fmt::arg("subcommands", fmt::join(lists.subcommands, " | ")),
                     fmt::arg("value_flags", fmt::join(lists.value_flags, " | ")), fmt::arg("values", values),
                     fmt::arg("commands", commands));
}

std::string fish_completion(const CLI::App& program) {
  const std::vector<CommandNames> tree = list_commands(program);
  const auto fish_quoted = [](const std::string& text) { return quoted(text, R"(\')"); };
  const auto paths = [](const ValueKind& kind) {
    return kind.files ? " -F" : kind.directories ? " -f -a '(__fish_complete_directories)'" : " -f";
  };
  const WordLists lists = word_lists(tree);
  std::string text = fmt::format(fmt::runtime(kFish), fmt::arg("subcommands", fmt::join(lists.subcommands, " ")),
                                 fmt::arg("value_flags", fmt::join(lists.value_flags, " ")));
  for (const CommandNames& command : tree) {
    const std::string start =
        fmt::format("complete -c comba -n {}", fish_quoted(fmt::format("test (__comba_command) = '{}'", command.name)));
    for (const std::string& name : command.subcommands) {
      text +=
          fmt::format("{} -a {} -d {}\n", start, name, fish_quoted(named(tree, command.name + ' ' + name).description));
    }
    if (command.takes_arguments) text += fmt::format("{}{}\n", start, paths(command.argument));
    for (const FlagNames& flag : command.flags) {
      text += start;
      for (const std::string& name : flag.names) {
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      if (flag.takes_value) text += " -r" + std::string(paths(flag.value));
      if (!flag.value.words.empty()) text += fmt::format(" -a '{}'", fmt::join(flag.value.words, " "));
      text += fmt::format(" -d {}\n", fish_quoted(flag.description));
    }
  }
  return text;
}

}  // namespace comba::cli
