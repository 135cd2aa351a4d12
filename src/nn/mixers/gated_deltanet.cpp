#include "nn/mixers/gated_deltanet.h"

namespace comba::nn {

CombaOptions as_gated_deltanet(CombaOptions options, bool negative_eigenvalues) {
  options.delta_rule.rule = Rule::gated_delta;
  options.delta_rule.beta_scale = negative_eigenvalues ? 2.0f : 1.0f;
  options.gate_function = GateFunction::silu;
  options.use_output_correction = false;
  options.use_inner_decay = false;
  return options;
}

}  // namespace comba::nn
