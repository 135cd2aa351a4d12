#pragma once

namespace comba {

/// Makes every CPU operator run on LibTorch's threads, so that a process has one pool only.
/// Call it again after at::set_num_threads, while no operator runs.
void use_torch_threads();

/// use_torch_threads at the first call of the process: what runs an operator on tensors calls this before.
void use_torch_threads_once();

}  // namespace comba
