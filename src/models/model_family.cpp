#include "models/model_family.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"

namespace comba::models {

void require_range(const char* key, int64_t value, int64_t smallest, int64_t largest) {
  require(value >= smallest && value <= largest, ErrorCode::invalid_argument, "[model_config] ", key, " must be from ",
          smallest, " to ", largest, "; got ", value);
}

void require_divides(const char* key, int64_t value, const char* divisor_key, int64_t divisor) {
  require_range(divisor_key, divisor, 1, kLargestSize);
  require(value % divisor == 0, ErrorCode::invalid_argument, "[model_config] ", key, " must be a multiple of ",
          divisor_key, "; got ", value, " and ", divisor);
}

namespace {

int64_t whole_head_dim(const char* key, double expand, const ModelConfig& config) {
  const double size = static_cast<double>(config.hidden_size) * expand;
  require(std::isfinite(size) && size == std::floor(size), ErrorCode::invalid_argument, "[model_config] hidden_size * ",
          key, " must be a whole number; got ", config.hidden_size, " * ", expand);
  const auto whole = static_cast<int64_t>(size);
  require_range(key, whole, 1, kLargestSize);
  require_divides(key, whole, "num_heads", config.num_heads);
  return whole / config.num_heads;
}

}  // namespace

int64_t head_k_dim(const ModelConfig& config) { return whole_head_dim("expand_k", config.family.expand_k, config); }
int64_t head_v_dim(const ModelConfig& config) { return whole_head_dim("expand_v", config.expand_v, config); }

int64_t swiglu_size(int64_t hidden_size, double hidden_ratio) {
  const auto two_thirds = static_cast<int64_t>(static_cast<double>(hidden_size) * hidden_ratio * 2 / 3);
  return 256 * ((two_thirds + 255) / 256);
}

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = [] {
    std::vector<ModelFamily> all = open_loop_families();
    for (ModelFamily& family : closed_loop_families()) all.push_back(std::move(family));
    return all;
  }();
  return families;
}

const ModelFamily* find_family(const std::string& model_type) {
  const auto& all = model_families();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const ModelFamily& family) { return family.model_type == model_type; });
  return found == all.end() ? nullptr : &*found;
}

}  // namespace comba::models
