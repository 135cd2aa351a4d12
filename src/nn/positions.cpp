#include "nn/positions.h"

#include "base/message.h"

namespace comba::nn {

at::Tensor positions_in_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens) {
  const at::Tensor borders = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  require(borders.dim() == 1 && borders.numel() >= 1, ErrorCode::invalid_argument,
          "[cu_seqlens] must have shape [N + 1]; got ", borders.sizes());
  const int64_t* border = borders.const_data_ptr<int64_t>();
  const int64_t num_sequences = borders.numel() - 1;
  bool ascending = border[0] == 0 && border[num_sequences] == num_tokens;
  for (int64_t n = 0; n < num_sequences; ++n) ascending = ascending && border[n] <= border[n + 1];
  require(ascending, ErrorCode::invalid_argument, "[cu_seqlens] must ascend from 0 to ", num_tokens);
  const at::Tensor positions = at::empty({num_tokens}, at::kLong);
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  for (int64_t n = 0; n < num_sequences; ++n) {
    for (int64_t t = border[n]; t < border[n + 1]; ++t) position[t] = t - border[n];
  }
  return positions.to(cu_seqlens.device());
}

}  // namespace comba::nn
