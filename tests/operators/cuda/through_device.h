#pragma once

#include <vector>

#include "operators/delta_rule/implementation.h"

namespace comba::test {

/// The implementations of the GPU as tests call them, whose tensors lie in host memory: each call copies its tensors
/// there, between guard zones, and back. Empty where no GPU is visible.
std::vector<delta_rule::Implementation> implementations_through_device();

}  // namespace comba::test
