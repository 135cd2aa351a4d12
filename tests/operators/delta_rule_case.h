#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "comba/delta_rule.h"
#include "operators/delta_rule/implementation.h"
#include "support/buffer.h"
#include "support/compare.h"

/// Random calls of the operator, described by one line, run by any implementation.
namespace comba::test {

enum class Feedback { unit, scalar, per_key_head, per_value_head };  ///< no b, no p; b; p of H heads; p of HV heads

/// Everything that decides a case. The same description makes the same inputs.
struct Description {
  Rule rule = Rule::comba;
  Convention convention = Convention::paper;
  Feedback feedback = Feedback::scalar;
  bool correction = true;   ///< d
  bool fused_gates = true;  ///< beta_logit and a, in place of beta and g
  bool l2norm = true;
  bool initial_state = true;
  bool final_gradient = true;  ///< d_final_state
  DType dtype = DType::f32;    ///< of q, k, v, p, o
  std::int64_t B = 1, T = 70, H = 2, HV = 2, K = 16, V = 16;
  std::vector<std::int64_t> cu_seqlens;  ///< empty: not packed
  double log_decay = 0.1;                ///< mean of -g
  double key_size = 1;                   ///< typical |k| times sqrt(K)
  bool identical_keys = false;
  std::uint64_t seed = 1;
};

/// One line that says which case this is, in the order of the fields.
std::string describe(const Description& description);

/// Draws a description from a seed: any rule, convention and option, small dims that are no multiple of anything.
Description random_description(std::uint64_t seed);

struct Case {
  explicit Case(const Description& description);

  Description description;
  DeltaRuleOptions options;
  Buffer q, k, v, p, b, d, beta, beta_logit, g, a, A_log, dt_bias, initial_state, cu_seqlens;
  Buffer d_o, d_final_state;

  std::int64_t num_sequences() const;
  DeltaRuleInputs inputs();
  /// Sequence n, of the batch or packed, as a case of its own.
  Case alone(std::int64_t n) const;
};

struct Outputs {
  Buffer o, final_state;
};

struct Gradients {
  Buffer dq, dk, dv, dp, db, dd, dbeta, dbeta_logit, dg, da, dA_log, ddt_bias, d_initial_state;
};

/// Gradients of every input the case has, full of NaN.
Gradients empty_gradients(const Case& c);
/// The call that fills them. A gradient whose buffer is absent is not asked for.
DeltaRuleBackward backward_args(Case& c, Gradients& out);

/// visit(name, buffer of x, buffer of y) for each gradient, with the names tolerances go by.
template <class X, class Y, class Visit>
void for_each_gradient(X& x, Y& y, const Visit& visit) {
  visit("dq", x.dq, y.dq);
  visit("dk", x.dk, y.dk);
  visit("dv", x.dv, y.dv);
  visit("dp", x.dp, y.dp);
  visit("db", x.db, y.db);
  visit("dd", x.dd, y.dd);
  visit("dbeta", x.dbeta, y.dbeta);
  visit("dbeta_logit", x.dbeta_logit, y.dbeta_logit);
  visit("dg", x.dg, y.dg);
  visit("da", x.da, y.da);
  visit("dA_log", x.dA_log, y.dA_log);
  visit("ddt_bias", x.ddt_bias, y.ddt_bias);
  visit("d_initial_state", x.d_initial_state, y.d_initial_state);
}

/// Runs one implementation, whatever COMBA_IMPL says, with outputs and workspace full of NaN.
Outputs forward(const delta_rule::Implementation& implementation, Case& c);
/// An implementation without a backward, or that refuses this one, gets the reference's.
Gradients backward(const delta_rule::Implementation& implementation, Case& c);
/// All tokens through decode_step in calls of at most `tokens_per_call`, from the initial state. Needs no cu_seqlens.
Outputs decode(const delta_rule::Implementation& implementation, Case& c, std::int64_t tokens_per_call);

const delta_rule::Implementation& reference();

/// Tolerances on RMS ratios (operator.md section 6), by tensor name and dtype of the case.
double tolerance(const std::string& tensor, DType dtype);

void expect_close(const Outputs& x, const Outputs& expected, const Description& description);
void expect_close(const Gradients& x, const Gradients& expected, const Description& description);

/// Those the tests are about; each test program defines it: cpu_implementations.cpp, cuda/cuda_implementations.cpp.
std::vector<delta_rule::Implementation> tested_implementations();

/// The tolerance of a gradient of the case; defined beside tested_implementations().
double gradient_tolerance(const std::string& tensor, const Buffer& x, const Description& description);

/// The tested implementations that support the case.
std::vector<delta_rule::Implementation> implementations_for(Case& c);
/// Those that support its backward call.
std::vector<delta_rule::Implementation> backward_implementations_for(Case& c);

}  // namespace comba::test
