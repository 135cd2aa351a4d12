#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/causal_lm.h"

/// What the control loops of a model do on a text: numbers by which a loop that has gone wrong is recognised.
namespace comba::evaluation {

/// Of a distribution: the value below which each share of kQuantileLevels lies; the first is the least, the last the
/// greatest.
using Quantiles = std::array<double, 7>;
inline constexpr Quantiles kQuantileLevels = {0, 0.05, 0.25, 0.5, 0.75, 0.95, 1};

/// A memory that never fades is said to last so many tokens.
inline constexpr double kLongestMemory = 1e6;

/// Pairs of keys count as near when at most so many tokens apart.
inline constexpr std::int64_t kNearKeys = 16;

/// Tokens over which the product of transitions is measured.
inline constexpr std::int64_t kMemorySpan = 64;

/// One Comba or Gated DeltaNet layer. Its transition A_t is alpha I - b beta k k^T by the comba rule and
/// alpha (I - b beta k k^T) by the gated_delta rule: all eigenvalues are alpha, but for one along the key.
struct LoopDiagnostics {
  std::string module;             ///< its name in the checkpoint, such as model.layers.3.attn
  double state_norm = 0;          ///< Frobenius norm behind the last token, root mean square of heads and sequences
  Quantiles decay = {};           ///< alpha, of tokens and value heads
  Quantiles key_eigenvalue = {};  ///< alpha - b beta |k|^2, or alpha (1 - b beta |k|^2), of the same
  double negative_share = 0;      ///< of those eigenvalues along keys
  double feedback = 0;            ///< b, mean of heads; 1 where the layer has none or its convention ignores it
  /// |q - d k| / |q| before normalisation, of tokens and key heads; only where the layer corrects its queries.
  std::optional<Quantiles> query_ratio = {};
  std::optional<double> query_cosine = {};  ///< mean cosine between q - d k and q
  std::optional<double> correction = {};    ///< d, mean of heads
  double key_coherence = 0;                 ///< mean |cosine| of keys at most kNearKeys tokens apart
  Quantiles decay_memory = {};  ///< tokens in which decay alone leaves 1/e of the state, -1 / mean(log alpha); of heads
  /// The same with what later keys erase, of heads: from the Frobenius norm of the product of kMemorySpan transitions,
  /// which is the root mean square of what is left of any state. At least kMemorySpan / 87, as long as fp32 can tell.
  Quantiles memory = {};
};

/// Whether a model has layers to diagnose.
bool has_control_loops(models::CausalLM& model);

/// All of them, in their order, from one forward pass without gradients over input_ids [B, T], and the operator once
/// more in each layer on parts of it. cu_seqlens and `pass` as in CausalLM::loss.
std::vector<LoopDiagnostics> diagnose_loops(models::CausalLM& model, const at::Tensor& input_ids,
                                            const at::Tensor& cu_seqlens = {}, const models::PassOptions& pass = {});

}  // namespace comba::evaluation
