#include "nn/mixers/packed_sequences.h"

#include "libtorch/positions.h"

namespace comba::nn {

at::Tensor over_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens, int64_t dim,
                          const std::function<at::Tensor(int64_t begin, int64_t length)>& function) {
  if (!cu_seqlens.defined()) return function(0, num_tokens);
  const std::vector<int64_t> borders = sequence_borders(cu_seqlens, num_tokens);
  std::vector<at::Tensor> outputs;
  for (size_t n = 0; n + 1 < borders.size(); ++n) {
    if (borders[n + 1] > borders[n]) outputs.push_back(function(borders[n], borders[n + 1] - borders[n]));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, dim);
}

}  // namespace comba::nn
