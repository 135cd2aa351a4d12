#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/environment.h"
#include "base/message.h"
#include "base/nearest_name.h"
#include "comba/delta_rule.h"
#include "command.h"
#include "format.h"
#include "models/causal_lm.h"
#include "models/mixer_table.h"
#include "operators/delta_rule/typical_call.h"

namespace comba::cli {
namespace {

/// Parameters of one name and shape in all layers.
struct Group {
  std::string name;  // the layer's number is a *
  std::vector<std::int64_t> shape;
  std::int64_t num_layers = 0;
  std::int64_t count = 0;  // elements, over all layers
};

/// "model.layers.17.attn.q_proj.weight" -> "model.layers.*.attn.q_proj.weight".
std::string without_layer_number(const std::string& name) {
  const std::string before = ".layers.";
  const std::size_t found = name.find(before);
  if (found == std::string::npos) return name;
  const std::size_t number = found + before.size();
  return name.substr(0, number) + "*" + name.substr(std::min(name.find('.', number), name.size()));
}

std::vector<Group> group_by_layer(const std::vector<models::ParameterRow>& rows) {
  std::vector<Group> groups;
  for (const models::ParameterRow& row : rows) {
    const std::string name = without_layer_number(row.name);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const Group& other) { return other.name == name && other.shape == row.shape; });
    if (group == groups.end()) group = groups.insert(group, {.name = name, .shape = row.shape});
    group->num_layers += 1;
    group->count += row.count;
  }
  return groups;
}

void print_model(const std::filesystem::path& path) {
  const bool is_directory = std::filesystem::is_directory(path);
  const models::ModelConfig config = models::load_model_config(is_directory ? path / "config.json" : path);
  const std::vector<Group> groups = group_by_layer(models::parameter_table(config));
  std::size_t width = 0;
  std::int64_t total = 0;
  for (const Group& group : groups) {
    width = std::max(width, group.name.size());
    total += group.count;
  }
  for (const Group& group : groups) {
    const std::string shape = fmt::format("[{}]", fmt::join(group.shape, ", "));
    const std::string layers = group.name.find('*') == std::string::npos ? "" : fmt::format("x {}", group.num_layers);
    fmt::print("{:<{}}  {:<16}{:<8}{:>15}\n", group.name, width, shape, layers, format_count(group.count));
  }
  fmt::print("{} parameters ({:.1f} M) in {}, {} in fp32\n", format_count(total), static_cast<double>(total) / 1e6,
             format_counted(config.num_hidden_layers, "layer"), format_bytes(total * 4));
}

struct MixerFlags {
  std::int64_t hidden_size = 1024;
  std::int64_t tokens = 2048;
};

void print_mixers(const MixerFlags& flags) {
  const std::vector<models::MixerRow> rows = models::mixer_table(flags.hidden_size, flags.tokens);
  fmt::print("{:<21}  {:<14}  {:<6}  {:>9}  {:>12}  {:>12}  {}\n", "mixer", "model_type", "loop", "state", "parameters",
             "FLOPs/token", "rule");
  for (const models::MixerRow& row : rows) {
    fmt::print("{:<21}  {:<14}  {:<6}  {:>9}  {:>12}  {:>12}  {}\n", row.name, row.model_type,
               row.facts.closed_loop ? "closed" : "open", format_bytes(row.facts.state_bytes),
               format_count(row.num_parameters), format_count(static_cast<std::int64_t>(row.flops)), row.facts.rule);
  }
  fmt::print("One layer {} wide, one stream after {} tokens, in fp32.\n", flags.hidden_size, flags.tokens);
}

void print_implementations() {
  const std::vector<DeltaRuleImplementation> list = delta_rule_implementations(typical_delta_rule_call());
  std::vector<std::string> names;
  names.reserve(list.size());
  for (const DeltaRuleImplementation& implementation : list) names.push_back(implementation.name);
  const std::string forced = forced_implementation();
  require(forced.empty() || std::ranges::count(names, forced) > 0, ErrorCode::invalid_argument,
          "[inspect] COMBA_IMPL must name an implementation, as ", nearest_name(forced, names), "; got ", forced);
  const std::string first = first_choice(list);
  fmt::print("{:<14}{:<16}{}\n", "operator", "implementation", "on this machine");
  for (auto it = list.begin(); it != list.end(); ++it) {
    std::string note = it->refusal.empty() ? "yes" : "no: " + it->refusal;
    if (it->name == forced) {
      note += ", chosen by COMBA_IMPL";
    } else if (forced.empty() && it->name == first) {
      note += ", the first choice";
    }
    fmt::print("{:<14}{:<16}{}\n", "delta_rule", it->name, note);
  }
}

}  // namespace

void register_inspect(CLI::App& program) {
  CLI::App* inspect = program.add_subcommand("inspect", "Show what a model or this program is made of")
                          ->footer(
                              "Examples:\n"
                              "  comba inspect model configs/comba-340m.json\n"
                              "  comba inspect mixers\n"
                              "  comba inspect implementations");

  auto path = std::make_shared<std::filesystem::path>();
  CLI::App* model = inspect->add_subcommand("model", "The parameters of a model")
                        ->footer(
                            "Examples:\n"
                            "  comba inspect model configs/comba-340m.json\n"
                            "  comba inspect model run/checkpoint-001000");
  model->add_option("model", *path, "Model directory, or its config.json")->required()->type_name("PATH");
  model->callback([path] { print_model(*path); });

  auto mixer_flags = std::make_shared<MixerFlags>();
  CLI::App* mixers =
      inspect->add_subcommand("mixers", "Every mixer: its rule, whether its loop is closed, its state and its cost")
          ->footer(
              "S is the state, d_v x d_k, before a token; the loop is closed where what is written depends on it. "
              "FLOPs\n"
              "are those of a token by itself. More in docs/mixers.md.\n"
              "\n"
              "Examples:\n"
              "  comba inspect mixers\n"
              "  comba inspect mixers --hidden-size 2048 --tokens 131072");
  mixers->add_option("--hidden-size", mixer_flags->hidden_size, "Width of the model, a multiple of 256")
      ->capture_default_str();
  mixers->add_option("--tokens", mixer_flags->tokens, "Tokens read, which attention remembers")->capture_default_str();
  mixers->callback([mixer_flags] { print_mixers(*mixer_flags); });

  CLI::App* implementations = inspect->add_subcommand("implementations", "What runs each operator, best first")
                                  ->footer(
                                      "Examples:\n"
                                      "  comba inspect implementations\n"
                                      "  COMBA_IMPL=cpu.reference comba inspect implementations");
  implementations->callback(print_implementations);
  inspect->add_flag_callback("--implementations", print_implementations)->group("");  // another way to ask
}

}  // namespace comba::cli
