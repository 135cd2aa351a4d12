#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/interrupted.h"
#include "base/nearest_name.h"
#include "build_facts.h"
#include "comba/error.h"
#include "command.h"
#include "run_together.h"
#include "signals.h"

namespace comba::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  comba data pack /usr/include/c++ --out headers.data
  comba train --config configs/demo.toml
  comba COMMAND --help

Exit codes: 0 success, 1 failure, 2 wrong usage, 128 + signal when interrupted.)";

/// One line, whatever the text: foreign errors bring stack traces along.
int fail(int exit_code, std::string_view message) {
  fmt::print(stderr, "comba: error: {}\n", message.substr(0, message.find('\n')));
  return exit_code;
}

/// The command the arguments led to: `comba data pack` of `comba data pack --ot x`.
const CLI::App& innermost_command(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  return commands.empty() ? app : innermost_command(*commands.front());
}

std::string full_name(const CLI::App& command) {
  const std::string& name = command.get_name();
  return command.get_parent() == nullptr ? name : full_name(*command.get_parent()) + " " + name;
}

std::vector<std::string> known_names(const CLI::App& command, bool flags) {
  std::vector<std::string> names;
  if (flags) {
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const CLI::App* subcommand : command.get_subcommands({})) names.push_back(subcommand->get_name());
  }
  return names;
}

/// What is wrong with a command line. An argument nobody knows is named first: it explains the other errors.
std::string explain(const CLI::ParseError& error, const CLI::App& program) {
  const CLI::App& command = innermost_command(program);
  const std::vector<std::string> unknown = program.remaining(true);
  std::string text = error.what();
  if (!unknown.empty()) {
    const bool is_flag = unknown.front().starts_with('-');
    const std::string given = unknown.front().substr(0, unknown.front().find('='));
    const std::string nearest = nearest_name(given, known_names(command, is_flag));
    text = fmt::format("unknown {} '{}'", is_flag ? "flag" : "argument", given);
    if (!nearest.empty()) text += fmt::format("; the nearest is '{}'", nearest);
  }
  return fmt::format("{} (see {} --help)", text, full_name(command));
}

int run(int argc, char** argv) {
  CLI::App program("Train, evaluate and use Comba language models.", "comba");
  program.footer(kExamples);
  bool json = false;
  CLI::Option* as_json = program.add_flag("--json", json, "With --version: as a JSON object");
  const auto version = [&json] { return json ? version_json() : version_text(); };
  as_json->needs(program.set_version_flag("--version", version, "Show the version and how it was built"));
  program.get_formatter()->column_width(36);
  program.require_subcommand(0, 1);  // `comba bench train` is the bench's train, not a second command
  for (const auto add :
       {register_data, register_train, register_eval, register_generate, register_inspect, register_logits,
        register_mqar, register_task, register_ablate, register_bench, register_completion}) {
    add(program);
  }
  try {
    program.parse(argc, argv);
    const CLI::App& command = innermost_command(program);
    const bool is_group = !command.get_subcommands({}).empty();
    if (is_group && command.parse_order().empty()) fmt::print("{}", program.help());  // nothing was asked for yet
  } catch (const CLI::Success& success) {                                             // --help, --version
    program.exit(success);
  } catch (const CLI::ParseError& error) {
    return fail(kUsage, explain(error, program));
  } catch (const ToldElsewhere& end) {
    return end.exit_code;
  } catch (const Interrupted& end) {
    fmt::print(stderr, "comba: {}\n", end.what());
    return 128 + end.signal_number();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::interrupted) {
      fmt::print(stderr, "comba: {}\n", error.what());
      return interrupted_exit_code();
    }
    return fail(exit_code_of(error), error.what());
  } catch (const std::bad_alloc&) {
    return fail(kFailure, "out of memory");
  } catch (const std::exception& error) {
    return fail(exit_code_of(error), error.what());
  }
  // A full disk or a closed pipe behind stdout must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail(kFailure, "cannot write to standard output");
  return 0;
}

}  // namespace

int exit_code_of(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  return own != nullptr && own->code() == ErrorCode::invalid_argument ? kUsage : kFailure;
}

}  // namespace comba::cli

int main(int argc, char** argv) { return comba::cli::run(argc, argv); }
