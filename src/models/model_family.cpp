#include "models/model_family.h"

#include <algorithm>

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
