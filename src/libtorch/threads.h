#pragma once

namespace comba {

/// Makes every CPU operator run on LibTorch's threads, so that a process has one pool only.
/// The operators on tensors do this before their first call. Call it again after at::set_num_threads, while no operator
/// runs.
void use_torch_threads();

}  // namespace comba
