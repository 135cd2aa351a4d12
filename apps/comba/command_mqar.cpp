#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "command.h"
#include "sweep_flags.h"
#include "tasks/settings.h"

namespace comba::cli {
namespace {

constexpr const char* kMqarDetails =
    R"(Multi-query associative recall: keys, each with its value behind it, and later some of the keys again, at which the
model must tell the value. The data are those of Zoology, number for number, and so is the small model around the mixer:
one layer of short convolution, one of the mixer, no MLP. Each cell, that is a mixer at a width and a learning rate, is
trained until its test accuracy is above 0.99, or for all epochs.

Settings:
  small     256 tokens, 64 long: minutes on a CPU
  mixture   8,192 tokens; learnt from 64 to 256 tokens with 4 to 64 pairs, tested up to 1024 tokens with 256 pairs
  figure2   8,192 tokens; four data sets, 64x4, 128x8, 256x16 and 512x64 (length x pairs), with a model each

Mixers are model types of config.json, with keys of it changed behind a colon; `softmax` is attention. OUT/results.json
gets every cell as it is finished. SIGINT and SIGTERM save the one at hand; --resume goes on, also with more cells.
`python -m comba.plot_mqar OUT/results.json` draws accuracy against the bytes of state. On a GPU, matrix products of the
linear maps may use TF32.

Examples:
  comba mqar --out small
  comba mqar --setting mixture --mixers comba,softmax --sizes 128 --learning-rates 1e-3,3e-3 --out mixture
  comba mqar --setting mixture --mixers comba:use_inner_decay=false --sizes 128 --out mixture --resume
  comba mqar --setting figure2 --data-sets 64x4,128x8 --sizes 64 --out figure2 --device cuda
  comba mqar --train 64x4x2000 --test 64x4x200 --vocab 100 --dump mqar.safetensors)";

constexpr const char* kTaskDetails =
    R"(Tasks that a model learns from short sequences and is tested on with longer ones:
  parity            whether the number of ones so far is odd
  modular-addition  the sum so far, modulo --vocab
  s3                the product so far of permutations of three things: the word problem of a group that is not abelian
  selective-copy    tokens among blanks, to be told in their order at the end
The first three need a state that each token moves: eigenvalues between -1 and 1 rather than 0 and 1, as
gated_deltanet:allow_neg_eigval=true has them, and comba:comba_rule=iplr:use_inner_decay=false (with b, which begins at
0.73, iplr goes down to 1 - 2 b). The model, and everything else, is as in `comba mqar`.

Examples:
  comba task parity --out parity
  comba task s3 --mixers gated_deltanet,gated_deltanet:allow_neg_eigval=true --layers 3 --out s3
  comba task selective-copy --train 64x8x20000 --test 64x8x500,512x8x500 --out copy
  comba task modular-addition --vocab 3 --dump sums.safetensors)";

}  // namespace

void register_mqar(CLI::App& program) {
  struct Flags : SweepFlags {
    std::string setting = "small";
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program.add_subcommand("mqar", "Compare mixers in associative recall")->footer(kMqarDetails);
  command->add_option("--setting", flags->setting, "Data, model and training to begin with")
      ->check(CLI::IsMember(tasks::mqar_settings()).description(""))
      ->type_name("small|mixture|figure2")
      ->capture_default_str();
  command->add_option("--data-sets", flags->data_sets, "Only these of the setting")->delimiter(',')->type_name("LIST");
  add_sweep_flags(*command, *flags);
  command->callback([flags] { run_sweep_command(tasks::mqar_sweep(flags->setting), *flags); });
}

void register_task(CLI::App& program) {
  struct Flags : SweepFlags {
    std::string task;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      program.add_subcommand("task", "Compare mixers in state tracking and copying")->footer(kTaskDetails);
  command->add_option("task", flags->task, "What to learn")
      ->required()
      ->check(CLI::IsMember({"parity", "modular-addition", "s3", "selective-copy"}).description(""))
      ->type_name("parity|modular-addition|s3|selective-copy");
  add_sweep_flags(*command, *flags);
  command->callback([flags] { run_sweep_command(tasks::task_sweep(flags->task), *flags); });
}

}  // namespace comba::cli
