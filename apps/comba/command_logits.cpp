#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/number_checks.h"
#include "comba/error.h"
#include "command.h"
#include "device_flag.h"
#include "models/checkpoint.h"
#include "models/safetensors.h"
#include "training/run_directory.h"
#include "weights_flag.h"

namespace comba::cli {
namespace {

constexpr const char* kLogitsDetails =
    R"(Reads token ids, from --ids or from the tensor input_ids [B, T] of a safetensors file, and computes the logits of the
token after each. Prints the likeliest ones, or writes all of them as the tensor logits [B, T, vocab] fp32.

Examples:
  comba logits --model run --ids 256,35,105,110,99
  comba logits --model run --ids 256,35,105 --out logits.safetensors
  comba logits --model checkpoint --input ids.safetensors --out logits.safetensors)";

struct LogitsFlags {
  std::filesystem::path model, input, out;
  std::vector<std::int64_t> ids;
  std::int64_t top = 5;
  std::string device = "cpu";
  std::string weights = "float";
};

at::Tensor read_ids(const LogitsFlags& flags) {
  if (!flags.ids.empty()) return at::tensor(flags.ids, at::kLong).unsqueeze(0);
  if (flags.input.empty()) throw Error(ErrorCode::invalid_argument, "[logits] needs tokens: --ids or --input");
  const auto tensors = models::read_safetensors(flags.input).tensors;
  const auto found = tensors.find("input_ids");
  if (found == tensors.end()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("[logits] the file must hold the tensor input_ids ({})", flags.input.string()));
  }
  return found->second.to(at::kLong);
}

/// One line a token: its id, then the likeliest ids after it with their logits.
void print_likeliest(const at::Tensor& ids, const at::Tensor& logits, std::int64_t top) {
  const auto [values, indices] = logits.topk(std::min(top, logits.size(2)));
  for (std::int64_t b = 0; b < ids.size(0); ++b) {
    if (b > 0) fmt::print("\n");
    for (std::int64_t t = 0; t < ids.size(1); ++t) {
      fmt::print("{:>8}  ->", ids[b][t].item<std::int64_t>());
      for (std::int64_t i = 0; i < values.size(2); ++i) {
        fmt::print("  {:>6} {:7.3f}", indices[b][t][i].item<std::int64_t>(), values[b][t][i].item<double>());
      }
      fmt::print("\n");
    }
  }
}

void run_logits(const LogitsFlags& flags) {
  const torch::NoGradGuard no_grad;
  const at::Tensor ids = read_ids(flags);
  const auto model = models::load_model(training::find_model_directory(flags.model));
  model->to(open_device(flags.device));
  keep_weights_as(flags.weights, *model);
  const at::Tensor logits = model->forward(ids).to(at::kCPU);
  if (flags.out.empty()) return print_likeliest(ids, logits, flags.top);
  models::write_safetensors(flags.out, {{"logits", logits}});
  fmt::print("{}\n", flags.out.string());
}

}  // namespace

void register_logits(CLI::App& program) {
  auto flags = std::make_shared<LogitsFlags>();
  CLI::App* command =
      program.add_subcommand("logits", "What a model expects after given tokens")->footer(kLogitsDetails);
  command->add_option("--model", flags->model, "Model directory, or a run (its newest checkpoint)")
      ->required()
      ->type_name("DIR");
  CLI::Option* ids = command->add_option("--ids", flags->ids, "Token ids")
                         ->delimiter(',')
                         ->type_name("ID,...")
                         ->allow_extra_args(false);
  command->add_option("--input", flags->input, "Safetensors file with input_ids [B, T]")
      ->type_name("FILE")
      ->excludes(ids);
  command->add_option("--top", flags->top, "How many of the likeliest tokens to print (default 5)")
      ->check(must_be_positive)
      ->type_name("N");
  command->add_option("--out", flags->out, "Write all logits to this safetensors file")->type_name("FILE");
  add_device_flag(*command, flags->device);
  add_weights_flag(*command, flags->weights);
  command->callback([flags] { run_logits(*flags); });
}

}  // namespace comba::cli
