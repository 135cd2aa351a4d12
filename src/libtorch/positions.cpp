#include "libtorch/positions.h"

#include <algorithm>
#include <numeric>

#include "base/message.h"

namespace comba {

std::vector<int64_t> sequence_borders(const at::Tensor& cu_seqlens, int64_t num_tokens) {
  if (!cu_seqlens.defined()) return {};
  require(cu_seqlens.dim() == 1 && cu_seqlens.numel() >= 1, ErrorCode::invalid_argument,
          "[cu_seqlens] must have shape [N + 1]; got ", cu_seqlens.sizes());
  const at::Tensor on_host = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = on_host.const_data_ptr<int64_t>();
  const std::vector<int64_t> borders(data, data + on_host.numel());
  require(borders.front() == 0 && borders.back() == num_tokens && std::is_sorted(borders.begin(), borders.end()),
          ErrorCode::invalid_argument, "[cu_seqlens] must ascend from 0 to T = ", num_tokens, "; got ",
          at::IntArrayRef(borders));
  return borders;
}

at::Tensor positions_in_sequences(const at::Tensor& cu_seqlens, int64_t num_tokens) {
  const std::vector<int64_t> borders = sequence_borders(cu_seqlens, num_tokens);
  const at::Tensor positions = at::empty({num_tokens}, at::kLong);
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  for (size_t n = 0; n + 1 < borders.size(); ++n) std::iota(position + borders[n], position + borders[n + 1], 0);
  return positions.to(cu_seqlens.device());
}

}  // namespace comba
