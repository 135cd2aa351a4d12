#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mixer_references.h"
#include "nn/mixers/comba.h"
#include "nn/mixers/mixer.h"

namespace comba::nn {

/// A mixer of width 24 and its equations.
struct MixerCase {
  std::string name;
  std::function<std::shared_ptr<Mixer>()> make;
  std::function<at::Tensor(const reference::Parameters&, const at::Tensor& x)> equations;  ///< empty: tested elsewhere
};

inline constexpr int64_t kWidth = 24;

/// Two key heads, four value heads.
CombaOptions small_comba();

/// Draws every parameter.
void randomise(torch::nn::Module& module);

/// Every mixer, in the order of the paper's table.
const std::vector<MixerCase>& mixer_cases();

/// For the names of parametrised tests.
inline void PrintTo(const MixerCase& mixer, std::ostream* out) { *out << mixer.name; }

}  // namespace comba::nn
