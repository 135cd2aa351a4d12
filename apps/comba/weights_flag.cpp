#include "weights_flag.h"

#include <CLI/CLI.hpp>

namespace comba::cli {

void add_weights_flag(CLI::App& command, std::string& weights) {
  command
      .add_option("--weights", weights, "Of matrices: float (as they are, default), or int8: a quarter of the memory")
      ->check(CLI::IsMember({"float", "int8"}).description(""))
      ->type_name("float|int8");
}

void keep_weights_as(const std::string& weights, models::CausalLM& model) {
  if (weights == "int8") model.round_weights_to_int8();
}

}  // namespace comba::cli
