#pragma once

#include <ATen/ATen.h>

#include "support/compare.h"

namespace comba::test {

/// close() for tensors, which must have one shape.
inline testing::AssertionResult close(const at::Tensor& x, const at::Tensor& reference, double tolerance,
                                      const std::string& what) {
  if (x.sizes() != reference.sizes()) {
    return testing::AssertionFailure() << what << ": shape " << x.sizes() << ", expected " << reference.sizes();
  }
  const auto elements = [](const at::Tensor& tensor) {
    const at::Tensor plain = tensor.detach().to(at::kDouble).contiguous();
    return std::vector<double>(plain.const_data_ptr<double>(), plain.const_data_ptr<double>() + plain.numel());
  };
  return close(elements(x), elements(reference), reference.sizes().vec(), tolerance, what, "");
}

}  // namespace comba::test
