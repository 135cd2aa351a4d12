#pragma once

#include <CLI/CLI.hpp>

#include <filesystem>

#include "base/number_checks.h"

/// Flags that the commands of `comba bench` have in common.
namespace comba::benchmarks {

inline void add_json_flag(CLI::App& command, std::filesystem::path& json) {
  command.add_option("--json", json, "Also write everything measured to this file")->type_name("FILE");
}

inline void add_threads_flag(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "Threads of the CPU; 0: as many as LibTorch takes by itself")
      ->check(must_not_be_negative)
      ->type_name("N");
}

/// A number of at least one.
inline CLI::Option* add_count(CLI::App& command, const char* name, auto& value, const char* description) {
  return command.add_option(name, value, description)->check(must_be_positive)->type_name("N");
}

/// Several of them, with commas between.
inline CLI::Option* add_counts(CLI::App& command, const char* name, auto& values, const char* description) {
  return add_count(command, name, values, description)->delimiter(',')->type_name("N,..");
}

}  // namespace comba::benchmarks
