#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "command.h"
#include "completion.h"

namespace comba::cli {
namespace {

constexpr const char* kCompletionDetails =
    R"help(Prints a script for the shell that completes commands, flags and files. `make install` puts all three where the shells
look for them. Without that, in the shell's start file (for zsh after its compinit), the line of it:
  eval "$(comba completion bash)"
  eval "$(comba completion zsh)"
  comba completion fish | source

Examples:
  comba completion bash > ~/.local/share/bash-completion/completions/comba
  comba completion fish > ~/.config/fish/completions/comba.fish)help";

struct Shell {
  const char* name;
  const char* description;
  std::string (*script)(const CLI::App& program);
};

constexpr Shell kShells[] = {{"bash", "The script for bash", bash_completion},
                             {"zsh", "The script for zsh", zsh_completion},
                             {"fish", "The script for fish", fish_completion}};

}  // namespace

void register_completion(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("completion", "Complete command lines in a shell")->footer(kCompletionDetails);
  for (const Shell& shell : kShells) {
    command->add_subcommand(shell.name, shell.description)
        ->footer(fmt::format("Examples:\n  comba completion {}", shell.name))
        ->callback([&program, script = shell.script] { fmt::print("{}", script(program)); });
  }
}

}  // namespace comba::cli
