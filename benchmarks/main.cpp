// The program behind `comba bench`.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <regex>

#include "base/file.h"
#include "comba/error.h"
#include "measure.h"
#include "operator_cpu.h"
#include "report.h"

namespace comba::benchmarks {
namespace {

struct Flags {
  std::string device = "cpu";
  std::string filter = ".*";
  std::filesystem::path json;
  int threads = 0;
  MeasureOptions measure;
};

/// The rows that match, and the ceilings they are compared with.
std::vector<Row> matching(const std::vector<Row>& rows, const std::string& filter) {
  const std::regex pattern(filter);
  std::vector<Row> chosen;
  for (const Row& row : rows) {
    const bool is_ceiling_of_one = std::ranges::any_of(
        rows, [&](const Row& other) { return other.ceiling == row.name && std::regex_search(other.name, pattern); });
    if (is_ceiling_of_one || std::regex_search(row.name, pattern)) chosen.push_back(row);
  }
  return chosen;
}

void bench_operator(const Flags& flags) {
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::vector<Row> rows = matching(operator_cpu_rows(), flags.filter);
  if (rows.empty()) throw Error(ErrorCode::invalid_argument, "--filter '" + flags.filter + "' matches no row");
  const std::vector<Measurement> measurements = measure(rows, flags.measure);
  fmt::print("{}", to_table(measurements));
  if (!flags.json.empty()) write_file_atomically(flags.json, to_json(measurements));
}

int run(int argc, char** argv) {
  Flags flags;
  CLI::App program("Time the operators beside what this machine does at best.", "comba bench");
  program.footer("Examples:\n  comba bench operator --device cpu");
  CLI::App* command = program.add_subcommand("operator", "delta_rule: forward, backward, decode")
                          ->footer(
                              "Each figure is the median of the repetitions. COMBA_IMPL=NAME times another "
                              "implementation.\n\n"
                              "Examples:\n"
                              "  comba bench operator --device cpu --json operator.json\n"
                              "  comba bench operator --filter 'forward .*D128'");
  program.require_subcommand(1);
  command->add_option("--device", flags.device, "Where to run: cpu")
      ->check(CLI::IsMember({"cpu"}))
      ->type_name("DEVICE");
  command->add_option("--filter", flags.filter, "Only rows whose name matches, and their ceilings")->type_name("REGEX");
  command->add_option("--json", flags.json, "Also write everything measured to this file")->type_name("FILE");
  command->add_option("--threads", flags.threads, "Threads; 0: as many as LibTorch takes by itself")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command->add_option("--repetitions", flags.measure.repetitions, "Of each row (default 5)")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  command->add_option("--min-seconds", flags.measure.min_seconds, "Of each repetition (default 0.3)")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("S");
  command->callback([&] { bench_operator(flags); });
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return program.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "comba: error: {} (see comba bench operator --help)\n", error.what());
    return 2;
  } catch (const std::regex_error&) {
    fmt::print(stderr, "comba: error: --filter must be a regular expression; got '{}'\n", flags.filter);
    return 2;
  } catch (const Error& error) {
    fmt::print(stderr, "comba: error: {}\n", error.what());
    return error.code() == ErrorCode::invalid_argument ? 2 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "comba: error: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace comba::benchmarks

int main(int argc, char** argv) { return comba::benchmarks::run(argc, argv); }
