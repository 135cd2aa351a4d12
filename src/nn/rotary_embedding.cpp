#include "nn/rotary_embedding.h"

#include <cmath>

namespace comba::nn {

at::Tensor rotary_embedding(const at::Tensor& x, const at::Tensor& positions, double theta) {
  const int64_t pairs = x.size(-1) / 2;
  const auto wide = x.options().dtype(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor frequency = at::pow(theta, at::arange(pairs, wide) / -static_cast<double>(pairs));  // [K / 2]
  const at::Tensor angle = at::outer(positions.to(wide.dtype()), frequency);                           // [T, K / 2]
  const at::Tensor cosine = at::cos(angle);
  const at::Tensor sine = at::sin(angle);
  const at::Tensor first = x.narrow(-1, 0, pairs);
  const at::Tensor second = x.narrow(-1, pairs, pairs);
  return at::cat({first * cosine - second * sine, second * cosine + first * sine}, /*dim=*/-1).to(x.scalar_type());
}

}  // namespace comba::nn
