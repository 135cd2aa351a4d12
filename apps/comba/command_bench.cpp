#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/message.h"
#include "command.h"

namespace comba::cli {
namespace {

/// Becomes the program comba-bench beside this one: only it needs the benchmark library.
void run_bench(const CLI::App& command) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe").replace_filename("comba-bench");
  std::vector<std::string> words = {"comba-bench"};
  for (const std::string& word : command.remaining()) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  throw Error(ErrorCode::io, concat("[bench] cannot start ", program.string(), ": ", std::strerror(errno)));
}

}  // namespace

void register_bench(CLI::App& program) {
  CLI::App* command = program.add_subcommand("bench", "Time the operators beside what this machine does at best");
  command->prefix_command()->set_help_flag();  // everything behind it, --help too, is for the other program
  command->callback([command] { run_bench(*command); });
}

}  // namespace comba::cli
