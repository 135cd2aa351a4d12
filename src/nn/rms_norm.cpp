#include "nn/rms_norm.h"

namespace comba::nn {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), at::kFloat));
  const at::Tensor inverse_rms = (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (wide * inverse_rms * weight).to(x.scalar_type());
}

}  // namespace comba::nn
