#pragma once

#include "nn/mixers/comba.h"

namespace comba::nn {

/// Gated DeltaNet (arXiv 2412.06464) as a Comba layer: decay before correction, the query as it is, full feedback, SiLU
/// on the output gate. `negative_eigenvalues` doubles beta.
/// The sizes and the other switches are taken from `options`.
CombaOptions as_gated_deltanet(CombaOptions options, bool negative_eigenvalues);

}  // namespace comba::nn
