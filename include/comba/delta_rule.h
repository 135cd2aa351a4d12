#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comba/export.h"
#include "comba/view.h"

/// The operator of this project: a matrix state that is corrected by feedback each token.
///
/// Dims, here and everywhere: B batch, T tokens, H key heads, HV value heads (a multiple of H), K key dim, V value dim,
/// N sequences (N = B, or the packed sequences of cu_seqlens). Value head j reads key head j / (HV / H).
///
/// Per token, with state h in R^{K x V} (arXiv 2506.02475, section 3; the derivation is in
/// src/operators/delta_rule/README.md):
///
///     comba        u = beta (v - h^T p);        h <- e^g h + k u^T;       o = h^T (scale q)
///     gated_delta  h <- e^g h;                  u = beta (v - h^T p);     h <- h + k u^T;      o = h^T (scale q)
///
/// Here q, k, p are what `Convention` makes of the raw inputs, and beta, g what the fused gates make of theirs.
namespace comba {

/// Which update a token makes.
enum class Rule : std::uint8_t {
  comba,        ///< correct with the undecayed state, then decay (SPLR)
  gated_delta,  ///< decay, then correct (Gated DeltaNet; also the paper's IPLR variant)
};

/// How raw q and k become query, key and feedback direction. l2(x) = x / sqrt(sum x^2 + l2norm_eps).
enum class Convention : std::uint8_t {
  /// q <- l2(q - d k), k <- l2(k), p = b l2(k), or the given p as it is.
  paper,
  /// p_raw = b k, or the given p;  q <- l2(q - d p_raw), k <- l2(k), p = l2(k) for scalar b, l2(p_raw) for a given p.
  fla,
};

struct DeltaRuleOptions {
  Rule rule = Rule::comba;
  Convention convention = Convention::paper;
  bool l2norm = true;            ///< false: every l2 above is the identity (and p = b k in both conventions)
  float l2norm_eps = 1e-6f;      ///< added to the sum of squares
  std::optional<float> scale{};  ///< multiplies the query; default K^-1/2
  float beta_scale = 1.0f;       ///< multiplies sigmoid(beta_logit); 2 (negative eigenvalues) is for gated_delta only
};

/// What a token brings. Views not given are absent; the last dimension of q, k, v, p and o has stride 1.
/// q, k, v, p and o share one dtype: f32, bf16 or f16. Gates may have any floating dtype.
struct DeltaRuleInputs {
  ConstView q{};              ///< [B, T, H, K]
  ConstView k{};              ///< [B, T, H, K]
  ConstView v{};              ///< [B, T, HV, V]
  ConstView p{};              ///< [B, T, H or HV, K]  full feedback direction, excludes b
  ConstView b{};              ///< [H] f32             feedback strength; absent: 1
  ConstView d{};              ///< [H] f32             output correction; absent: 0
  ConstView beta{};           ///< [B, T, HV]          step size itself, or
  ConstView beta_logit{};     ///< [B, T, HV]          beta = beta_scale sigmoid(beta_logit)
  ConstView g{};              ///< [B, T, HV]          log decay <= 0 itself (-inf is legal), or
  ConstView a{};              ///< [B, T, HV]          g = -exp(A_log) softplus(a + dt_bias), with
  ConstView A_log{};          ///< [HV] f32
  ConstView dt_bias{};        ///< [HV] f32
  ConstView initial_state{};  ///< [N, HV, K, V] f32   absent: zero
  ConstView cu_seqlens{};     ///< [N + 1] i32 or i64  packed sequences; needs B = 1
};

/// Scratch memory, provided by the caller, 64-byte aligned. Its content means nothing before or after a call.
struct Workspace {
  void* data = nullptr;
  std::int64_t bytes = 0;
};

struct DeltaRuleForward {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  View o{};            ///< [B, T, HV, V]       dtype of q
  View final_state{};  ///< [N, HV, K, V] f32   optional
};

struct DeltaRuleBackward {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  ConstView do_{};            ///< [B, T, HV, V]       gradient of o
  ConstView d_final_state{};  ///< [N, HV, K, V] f32   optional
  // Gradients: each has the shape of its input, is overwritten, and may be absent when nobody asks for it.
  View dq{};               ///< dtype of q
  View dk{};               ///< dtype of q
  View dv{};               ///< dtype of q
  View dp{};               ///< dtype of q; only with p
  View db{};               ///< f32; only with b
  View dd{};               ///< f32; only with d
  View dbeta{};            ///< any floating dtype; only with beta
  View dbeta_logit{};      ///< any floating dtype; only with beta_logit
  View dg{};               ///< any floating dtype; only with g
  View da{};               ///< any floating dtype; only with a
  View dA_log{};           ///< f32; only with a
  View ddt_bias{};         ///< f32; only with a
  View d_initial_state{};  ///< f32; only with initial_state
};

/// T new tokens of B independent sequences, token by token, with the state updated in place.
/// `inputs.initial_state` and `inputs.cu_seqlens` must be absent.
struct DeltaRuleDecode {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  View state{};  ///< [B, HV, K, V] f32   read, then overwritten
  View o{};      ///< [B, T, HV, V]       dtype of q
};

/// Bytes the workspace of such a call must have.
COMBA_API std::int64_t workspace_bytes(const DeltaRuleForward& args);
COMBA_API std::int64_t workspace_bytes(const DeltaRuleBackward& args);
COMBA_API std::int64_t workspace_bytes(const DeltaRuleDecode& args);

/// Computes o and final_state in chunks of 64 tokens. Throws Error when an argument breaks a rule; then nothing is
/// written.
COMBA_API void delta_rule_forward(const DeltaRuleForward& args, Workspace workspace);

/// Computes every gradient asked for, of the loss <o, do_> + <final_state, d_final_state>.
COMBA_API void delta_rule_backward(const DeltaRuleBackward& args, Workspace workspace);

/// Advances the state by T tokens and computes their outputs.
COMBA_API void delta_rule_decode_step(const DeltaRuleDecode& args, Workspace workspace);

/// Implementations, best first: the first that supports a call runs it, unless the environment variable COMBA_IMPL
/// names one. For tests, benchmarks and `comba inspect implementations`.
COMBA_API std::vector<std::string> delta_rule_implementations();

}  // namespace comba
