#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comba/execution.h"
#include "comba/export.h"
#include "comba/view.h"

/// The operator of this project: a matrix state that is corrected by feedback each token.
///
/// Dims, here and everywhere: B batch, T tokens, H key heads, HV value heads (a multiple of H), K key dim, V value dim,
/// N sequences (N = B, or the packed sequences of cu_seqlens). Value head j reads key head j / (HV / H).
/// K and V are at most 256.
///
/// Per token, with state h in R^{K x V} (arXiv 2506.02475, section 3; the derivation is in
/// src/operators/delta_rule/README.md):
///
///     comba        u = beta (v - h^T p);        h <- e^g h + k u^T;       o = h^T (scale q)
///     gated_delta  h <- e^g h;                  u = beta (v - h^T p);     h <- h + k u^T;      o = h^T (scale q)
///
/// Here q, k, p are what `Convention` makes of the raw inputs, and beta, g what the fused gates make of theirs.
///
/// Errors: a function throws Error, on the thread that called it and before anything is written, when an argument
/// breaks a rule of this header (code invalid_argument) or nothing implements the call (unsupported).
///
/// Threads: every function here may be called on several threads at once. Outputs, state and workspace then belong to
/// one call each; inputs may be shared. The first call to come runs on all threads of comba/parallel.h, another beside
/// it on the thread that made it; the bits of the results do not depend on that, nor on the number of threads. While a
/// call runs, nobody may set the number of threads, the hook or an environment variable.
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

/// What a token brings. Views not given are absent; the last dimension of q, k, v, p, o and states has stride 1.
/// q, k, v, p and o share one dtype: f32, bf16 or f16. Gates may have any floating dtype. Decays are natural
/// logarithms. Values are not checked.
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
  /// [N + 1] i32 or i64: sequence n is the tokens from border n to border n + 1; from 0 to T, never decreasing; needs
  /// B = 1. On a GPU wrong borders, which nobody can refuse there, make every result NaN: see check_borders().
  ConstView cu_seqlens{};
};

/// Scratch memory of the caller, aligned to 64 bytes, of at least workspace_bytes(). Its content means nothing before
/// a call, and after it to check_borders() alone.
struct Workspace {
  void* data = nullptr;
  std::int64_t bytes = 0;
};

/// Outputs, here and below, overlap neither inputs nor each other.
struct DeltaRuleForward {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  View o{};            ///< [B, T, HV, V]       dtype of q
  View final_state{};  ///< [N, HV, K, V] f32   optional
  /// Memory of at least saved_bytes(), aligned to 64 bytes, where the call leaves the states before each chunk and what
  /// else the backward call would compute again. Optional; the bits of all results are the same with and without.
  Workspace saved{};
  Execution execution{};
};

/// `options` and `inputs` are those of the forward call; nothing else of it is needed.
struct DeltaRuleBackward {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  ConstView do_{};            ///< [B, T, HV, V]       gradient of o
  ConstView d_final_state{};  ///< [N, HV, K, V] f32   optional
  Workspace saved{};          ///< what the forward call left there, if it did; it is not changed
  // Gradients, dx = d loss / dx: each has the shape of its input, is overwritten, and may be absent: then it is not
  // computed.
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
  Execution execution{};
};

/// T new tokens of B independent sequences, token by token, with the state updated in place.
/// `inputs.initial_state` and `inputs.cu_seqlens` must be absent.
///
/// Speculative decoding: a first call with num_accepted 0 gives the outputs of all T drafted tokens and leaves the
/// state as it was; once it is known how many of them stay, a second call with that number writes the state after
/// these.
struct DeltaRuleDecode {
  DeltaRuleOptions options{};
  DeltaRuleInputs inputs{};
  View state{};  ///< [S, HV, K, V] f32 or bf16   read, then overwritten; S = B unless state_indices are given
  View o{};      ///< [B, T, HV, V]               dtype of q
  /// [B] i32: the state of each batch row, none of them twice; a row whose index is not in 0 .. S - 1 is skipped, its
  /// output left as it is. Absent: row b has state b.
  ConstView state_indices{};
  /// [B] i32: after how many of the T tokens of each batch row its state is written; not in 1 .. T: it is left as it
  /// was. Absent: all T. Outputs are those of all T tokens in any case.
  ConstView num_accepted{};
  Execution execution{};
};

/// Bytes the workspace of such a call must have. They depend on the shapes, the options and num_threads(); the only
/// data read is cu_seqlens.
COMBA_API std::int64_t workspace_bytes(const DeltaRuleForward& args);
COMBA_API std::int64_t workspace_bytes(const DeltaRuleBackward& args);
COMBA_API std::int64_t workspace_bytes(const DeltaRuleDecode& args);

/// Bytes that such a call can leave for its backward call; 0: it has no use for any.
COMBA_API std::int64_t saved_bytes(const DeltaRuleForward& args);

/// o_t = h_t^T (scale q_t) for every token, and final_state = h after the last token of each sequence: the recurrence
/// above, in chunks of 64 tokens (section 4 of the derivation).
COMBA_API void delta_rule_forward(const DeltaRuleForward& args, Workspace workspace);

/// Every gradient asked for, of loss = <o, do_> + <final_state, d_final_state> (section 5 of the derivation).
COMBA_API void delta_rule_backward(const DeltaRuleBackward& args, Workspace workspace);

/// state <- h after T tokens, o_t = h_t^T (scale q_t): the recurrence above as it stands, started from `state`.
COMBA_API void delta_rule_decode_step(const DeltaRuleDecode& args, Workspace workspace);

/// For packed sequences on a GPU: waits until the call made with these arguments and this workspace has run, or the
/// last replay of a CUDA graph with it, and throws Error (invalid_argument) if it found wrong borders in cu_seqlens. On
/// the CPU such a call was refused at once, so there, and without cu_seqlens, this does nothing.
COMBA_API void check_borders(const DeltaRuleForward& args, Workspace workspace);
COMBA_API void check_borders(const DeltaRuleBackward& args, Workspace workspace);

struct DeltaRuleImplementation {
  std::string name;     ///< its path with dots: cpu.avx2
  std::string refusal;  ///< why it cannot run the call; empty when it can
};

/// Implementations, best first: the first that does not refuse a call runs it, unless the environment variable
/// COMBA_IMPL names one. Throws Error when an argument breaks a rule.
COMBA_API std::vector<DeltaRuleImplementation> delta_rule_implementations(const DeltaRuleForward& args);

}  // namespace comba
