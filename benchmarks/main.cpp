// The program behind `comba bench`.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <regex>

#include "base/file.h"
#include "base/message.h"
#include "base/number_checks.h"
#include "bench_flags.h"
#include "claims_command.h"
#include "comba/error.h"
#include "decode_command.h"
#include "gpu_cases.h"
#include "measure.h"
#include "operator_cpu.h"
#include "operator_gpu.h"
#include "report.h"
#include "train_command.h"

namespace comba::benchmarks {
namespace {

struct Flags {
  std::string device = "cpu";
  std::string filter = ".*";
  std::filesystem::path json;
  int threads = 0;
  MeasureOptions measure;
  int gpu_repetitions = 24;
  bool list = false;
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

std::vector<Row> cpu_rows(const Flags& flags) {
  const std::vector<Row> rows = matching(operator_cpu_rows(), flags.filter);
  require(!rows.empty(), ErrorCode::invalid_argument, "--filter '", flags.filter, "' matches no row");
  return rows;
}

void bench_on_cpu(const Flags& flags) {
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  const std::vector<Measurement> measurements = measure(cpu_rows(flags), flags.measure);
  fmt::print("{}", to_table(measurements));
  if (!flags.json.empty()) write_file_atomically(flags.json, to_json(measurements));
}

void list_rows(const Flags& flags) {
  if (flags.device == "cuda") {
    for (const GpuCase& x : gpu_cases_matching(flags.filter)) fmt::print("{}\n", x.name());
  } else {
    for (const Row& row : cpu_rows(flags)) fmt::print("{}\n", row.name);
  }
}

void bench_on_gpu(const CLI::App& command, const Flags& flags) {
  for (const char* name : {"--threads", "--min-seconds"}) {
    require(command.count(name) == 0, ErrorCode::invalid_argument, name, " is for --device cpu");
  }
  const std::string json = bench_operator_on_gpu(flags.filter, flags.gpu_repetitions);
  if (!flags.json.empty()) write_file_atomically(flags.json, json);
}

int run(int argc, char** argv) {
  Flags flags;
  CLI::App program("Time the operators, training and decoding beside what this machine does at best.", "comba bench");
  program.footer(
      "Examples:\n  comba bench operator --device cpu\n  comba bench train --model configs/comba-340m.json --device "
      "cuda");
  register_claims(program);
  register_decode(program);
  register_train(program);
  CLI::App* command =
      program.add_subcommand("operator", "delta_rule: forward, backward, decode")
          ->footer(
              "Each figure is the median of the repetitions. COMBA_IMPL=NAME times another "
              "implementation.\nA GPU runs CUDA graphs over rotated buffers, beside a copy and a matrix "
              "product there; benchmarks/peers.py\nadds the published kernels, under the same names.\n\n"
              "Examples:\n"
              "  comba bench operator --device cpu --json operator.json\n"
              "  comba bench operator --device cuda --filter 'decode_step'\n"
              "  comba bench operator --filter 'forward .*D128'");
  program.require_subcommand(1);
  command->add_option("--device", flags.device, "Where to run: cpu (default), or cuda: the first GPU")
      ->check(CLI::IsMember({"cpu", "cuda"}).description(""))
      ->type_name("cpu|cuda");
  command->add_option("--filter", flags.filter, "Only rows whose name matches, and their ceilings")->type_name("REGEX");
  add_json_flag(*command, flags.json);
  add_threads_flag(*command, flags.threads);
  command
      ->add_option_function<int>(
          "--repetitions", [&](int count) { flags.measure.repetitions = flags.gpu_repetitions = count; },
          "Of each row (default 5, on a GPU 24)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--min-seconds", flags.measure.min_seconds, "Of each repetition on the CPU (default 0.3)")
      ->check(must_be_positive)
      ->type_name("S");
  command->add_flag("--list", flags.list, "Print the names of the rows, and measure nothing");
  command->callback([&] {
    if (flags.list) return list_rows(flags);
    flags.device == "cpu" ? bench_on_cpu(flags) : bench_on_gpu(*command, flags);
  });
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return program.exit(success);
  } catch (const CLI::ParseError& error) {
    const auto chosen = program.get_subcommands();
    const std::string name = chosen.empty() ? "" : " " + chosen[0]->get_name();
    const std::vector<std::string> unknown = program.remaining(/*recurse=*/true);
    const std::string text = unknown.empty() ? error.what() : concat("unknown argument '", unknown.front(), "'");
    fmt::print(stderr, "comba: error: {} (see comba bench{} --help)\n", text, name);
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
