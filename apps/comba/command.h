#pragma once

namespace CLI {
class App;
}

/// The commands of the program, one file each: command_NAME.cpp. A register function adds its command to the parser,
/// with a callback that does the work after the whole command line was found valid. Errors are thrown: main.cpp turns
/// them into one line and an exit code.
namespace comba::cli {

inline constexpr int kFailure = 1;
inline constexpr int kUsage = 2;

/// The exit code that stands for an error: wrong usage or failure.
int exit_code_of(const std::exception& error);

void register_data(CLI::App& program);
void register_train(CLI::App& program);
void register_eval(CLI::App& program);
void register_generate(CLI::App& program);
void register_inspect(CLI::App& program);
void register_logits(CLI::App& program);
void register_mqar(CLI::App& program);
void register_ablate(CLI::App& program);
void register_task(CLI::App& program);
void register_bench(CLI::App& program);
void register_completion(CLI::App& program);

}  // namespace comba::cli
