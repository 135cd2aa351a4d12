#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/key_reader.h"
#include "models/model_config.h"

namespace comba::models {

inline constexpr int64_t kLargestSize = int64_t{1} << 24;  // of any dimension: a product of two stays inside int64_t

/// Throws Error invalid_argument that names the key.
void require_range(const char* key, int64_t value, int64_t smallest, int64_t largest);
void require_divides(const char* key, int64_t value, const char* divisor_key, int64_t divisor);

/// Of a SwiGLU MLP: 256 ceil(int(2/3 hidden_ratio D) / 256).
int64_t swiglu_size(int64_t hidden_size, double hidden_ratio);

/// Reads each value that it is shown under its key, or writes it: one list of keys serves both.
class KeyVisitor {
 public:
  explicit KeyVisitor(KeyReader& reader) : reader_(&reader) {}
  explicit KeyVisitor(Json& json) : json_(&json) {}

  template <class T>
  void operator()(const char* key, T& value) const {
    if (reader_ != nullptr) {
      reader_->read(key, value);
    } else {
      (*json_)[key] = value;
    }
  }

 private:
  KeyReader* reader_ = nullptr;
  Json* json_ = nullptr;
};

/// Of a head of linear attention, RetNet and GLA: hidden_size expand_k / num_heads, and so for the values. Throw Error
/// invalid_argument where that is no whole number.
int64_t head_k_dim(const ModelConfig& config);
int64_t head_v_dim(const ModelConfig& config);

/// What config.json says of the models of a mixer. The mixer itself: family_mixers.h.
struct ModelFamily {
  std::string model_type;    ///< as config.json spells it
  std::string architecture;  ///< likewise
  std::vector<Json> hidden_act = {"swish", "silu"};
  double hidden_ratio = 4;  ///< where the file says nothing of it
  /// Of the MLP, where the file says nothing of its size.
  int64_t (*intermediate_size)(int64_t hidden_size, double hidden_ratio) = swiglu_size;
  void (*set_defaults)(ModelConfig& config) = nullptr;
  void (*visit)(ModelConfig& config, const KeyVisitor& key) = nullptr;          ///< the type's own keys
  void (*require_known)(KeyReader& keys, const ModelConfig& config) = nullptr;  ///< switches that have one value here
  void (*validate)(const ModelConfig& config) = nullptr;
};

/// All of them but comba, gated_deltanet and transformer.
const std::vector<ModelFamily>& model_families();

/// Null for comba, gated_deltanet, transformer and for unknown types.
const ModelFamily* find_family(const std::string& model_type);

/// The two halves of model_families().
std::vector<ModelFamily> open_loop_families();
std::vector<ModelFamily> closed_loop_families();

}  // namespace comba::models
