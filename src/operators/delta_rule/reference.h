#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

/// The definition of the operator and its adjoint in double, token by token. Everything faster is judged by it, so it
/// shares no code with what it judges. Notation and derivation: README.md beside this file, sections 1 to 3.
namespace comba::reference {

using Vector = std::vector<double>;

/// All tensors dense and row-major with the shapes of comba/delta_rule.h; an empty vector is an absent argument.
struct Tensors {
  Vector q, k, v, p, b, d, beta, beta_logit, g, a, A_log, dt_bias, initial_state;
};

struct Sequence {
  std::int64_t first_row, num_tokens;  // rows count tokens over the whole batch: row = batch * T + token
};

struct DeltaRule {
  bool gated_delta = false, fla = false, l2norm = true;
  double l2norm_eps = 1e-6, scale = 1, beta_scale = 1;
  std::int64_t H = 1, HV = 1, P_heads = 1, K = 1, V = 1;
  std::vector<Sequence> sequences;
  Tensors in;

  struct Outputs {
    Vector o, final_state;
  };
  Outputs forward() const;
  /// Gradients of <o, d_o> + <final_state, d_final_state>, under the names of the inputs; d_final_state may be empty.
  Tensors backward(const Vector& d_o, const Vector& d_final_state) const;

 private:
  /// One token of one value head: what convention and gates make of the raw inputs.
  struct Token {
    Vector q, k, p;          // corrected, normalised; q not yet scaled
    double rq, rk, rp;       // factors of the normalisations
    double beta, g;          // step size; log decay, at least -128
    const double* v;         // [V]
    std::int64_t key, gate;  // offset of its row in q and k; in beta and g
    std::int64_t p_key;      // offset of its row in p
    std::int64_t head;       // key head
  };
  Token token(std::int64_t row, std::int64_t j) const;
  void adjoint_of_token(const Token& x, const Vector& dq, const Vector& dk, const Vector& dp, double dbeta, double dg,
                        std::int64_t j, Tensors& grad) const;
  void step(const Token& x, Vector& h, double* o) const;
  void adjoint_of_step(const Token& x, const Vector& h, const double* d_o, std::int64_t j, Vector& dh, double* dv,
                       Tensors& grad) const;
  double b(std::int64_t head) const { return in.b.empty() ? 1 : in.b[head]; }
  double d(std::int64_t head) const { return in.d.empty() ? 0 : in.d[head]; }
  double norm_factor(const Vector& x) const;
};

inline double dot(const Vector& x, const Vector& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

inline Vector scaled(double factor, Vector x) {
  for (double& value : x) value *= factor;
  return x;
}

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

inline double DeltaRule::norm_factor(const Vector& x) const {
  return l2norm ? 1 / std::sqrt(dot(x, x) + l2norm_eps) : 1;
}

inline DeltaRule::Token DeltaRule::token(std::int64_t row, std::int64_t j) const {
  Token x;
  x.head = j / (HV / H);
  x.key = (row * H + x.head) * K;
  x.p_key = (row * P_heads + j / (HV / P_heads)) * K;
  x.gate = row * HV + j;
  x.v = &in.v[x.gate * V];
  const Vector k(&in.k[x.key], &in.k[x.key] + K);
  const Vector p = in.p.empty() ? scaled(b(x.head), k) : Vector(&in.p[x.p_key], &in.p[x.p_key] + K);
  Vector q(&in.q[x.key], &in.q[x.key] + K);
  for (std::int64_t i = 0; i < K; ++i) q[i] -= d(x.head) * (fla ? p : k)[i];  // the output correction
  x.rq = norm_factor(q);
  x.rk = norm_factor(k);
  x.rp = in.p.empty() ? x.rk : (fla ? norm_factor(p) : 1);
  x.q = scaled(x.rq, q);
  x.k = scaled(x.rk, k);
  x.p = in.p.empty() && fla && l2norm ? x.k : scaled(x.rp, p);  // scalar b: l2(k) whatever b, so b = 0 does no harm
  x.beta = in.beta.empty() ? beta_scale * sigmoid(in.beta_logit[x.gate]) : in.beta[x.gate];
  x.g = in.a.empty() ? in.g[x.gate] : -std::exp(in.A_log[j]) * softplus(in.a[x.gate] + in.dt_bias[j]);
  x.g = std::max(x.g, -128.0);
  return x;
}

inline void DeltaRule::step(const Token& x, Vector& h, double* o) const {
  const double alpha = std::exp(x.g);
  for (std::int64_t c = 0; c < V; ++c) {  // each column of the state is a system of its own
    double recalled = 0, read = 0;
    for (std::int64_t i = 0; i < K; ++i) recalled += x.p[i] * h[i * V + c];
    const double u = x.beta * (x.v[c] - (gated_delta ? alpha : 1) * recalled);
    for (std::int64_t i = 0; i < K; ++i) {
      h[i * V + c] = alpha * h[i * V + c] + x.k[i] * u;
      read += h[i * V + c] * x.q[i];
    }
    o[c] = scale * read;
  }
}

/// `h` is the state before the token, `dh` the gradient of the state after it and, on return, of the state before it.
inline void DeltaRule::adjoint_of_step(const Token& x, const Vector& h, const double* d_o, std::int64_t j, Vector& dh,
                                       double* dv, Tensors& grad) const {
  const double alpha = std::exp(x.g), seen = gated_delta ? alpha : 1;  // the feedback sees `seen * h`
  Vector dq(K), dk(K), dp(K);
  double dbeta = 0, d_alpha = 0;
  for (std::int64_t c = 0; c < V; ++c) {
    double recalled = 0, du = 0;
    for (std::int64_t i = 0; i < K; ++i) recalled += x.p[i] * h[i * V + c];
    const double error = x.v[c] - seen * recalled, u = x.beta * error;
    for (std::int64_t i = 0; i < K; ++i) {
      dq[i] += scale * d_o[c] * (alpha * h[i * V + c] + x.k[i] * u);
      dh[i * V + c] += scale * d_o[c] * x.q[i];
      dk[i] += dh[i * V + c] * u;
      du += dh[i * V + c] * x.k[i];
    }
    const double d_error = x.beta * du;
    dbeta += du * error;
    dv[c] += d_error;
    for (std::int64_t i = 0; i < K; ++i) {
      dp[i] -= seen * h[i * V + c] * d_error;
      d_alpha += h[i * V + c] * (dh[i * V + c] - (gated_delta ? x.p[i] * d_error : 0));
      dh[i * V + c] = alpha * dh[i * V + c] - seen * x.p[i] * d_error;
    }
  }
  adjoint_of_token(x, dq, dk, dp, dbeta, alpha * d_alpha, j, grad);
}

inline void DeltaRule::adjoint_of_token(const Token& x, const Vector& dq, const Vector& dk, const Vector& dp,
                                        double dbeta, double dg, std::int64_t j, Tensors& grad) const {
  // y = r(x) x has the adjoint dx = r (dy - y <y, dy>) when r normalises, and r dy when it does not.
  const auto denormalise = [this](double r, const Vector& y, const Vector& dy, bool normalised) {
    const double along = normalised && l2norm ? dot(y, dy) : 0;
    Vector dx(K);
    for (std::int64_t i = 0; i < K; ++i) dx[i] = r * (dy[i] - y[i] * along);
    return dx;
  };
  const double b = this->b(x.head), d = this->d(x.head);
  const bool p_given = !in.p.empty(), b_acts = !p_given && !(fla && l2norm);  // otherwise p = l2(k)
  const Vector dq_raw = denormalise(x.rq, x.q, dq, true);
  const Vector dp_raw = p_given ? denormalise(x.rp, x.p, dp, fla) : Vector(K);
  Vector dk_unit = dk;
  if (!p_given) {
    for (std::int64_t i = 0; i < K; ++i) dk_unit[i] += (b_acts ? b : 1) * dp[i];
    if (b_acts && !in.b.empty()) grad.b[x.head] += dot(x.k, dp);
  }
  const Vector dk_raw = denormalise(x.rk, x.k, dk_unit, true);
  double d_dot = 0;  // <dq_raw, direction of the correction, without b>
  for (std::int64_t i = 0; i < K; ++i) {
    const bool along_p = fla && p_given;
    grad.q[x.key + i] += dq_raw[i];
    grad.k[x.key + i] += dk_raw[i] - (along_p ? 0 : d * (fla ? b : 1) * dq_raw[i]);
    if (p_given) grad.p[x.p_key + i] += dp_raw[i] - (along_p ? d * dq_raw[i] : 0);
    d_dot += dq_raw[i] * (along_p ? in.p[x.p_key + i] : in.k[x.key + i]);
  }
  if (!in.d.empty()) grad.d[x.head] -= (fla && !p_given ? b : 1) * d_dot;
  if (fla && !in.b.empty()) grad.b[x.head] -= d * d_dot;
  if (in.beta.empty()) {
    grad.beta_logit[x.gate] += dbeta * x.beta * (1 - x.beta / beta_scale);
  } else {
    grad.beta[x.gate] += dbeta;
  }
  if (x.g <= -128) dg = 0;  // clamped
  if (in.a.empty()) {
    grad.g[x.gate] += dg;
  } else {
    const double da = -dg * std::exp(in.A_log[j]) * sigmoid(in.a[x.gate] + in.dt_bias[j]);
    grad.a[x.gate] += da;
    grad.dt_bias[j] += da;
    grad.A_log[j] += dg * x.g;
  }
}

inline DeltaRule::Outputs DeltaRule::forward() const {
  const std::int64_t N = static_cast<std::int64_t>(sequences.size());
  Outputs out{Vector(in.v.size()), Vector(N * HV * K * V)};
  for (std::int64_t n = 0; n < N; ++n) {
    for (std::int64_t j = 0; j < HV; ++j) {
      const std::int64_t state = (n * HV + j) * K * V;
      Vector h(K * V);
      if (!in.initial_state.empty()) std::copy_n(&in.initial_state[state], K * V, h.begin());
      for (std::int64_t t = 0; t < sequences[n].num_tokens; ++t) {
        const Token x = token(sequences[n].first_row + t, j);
        step(x, h, &out.o[x.gate * V]);
      }
      std::copy(h.begin(), h.end(), out.final_state.begin() + state);
    }
  }
  return out;
}

inline Tensors DeltaRule::backward(const Vector& d_o, const Vector& d_final_state) const {
  const auto zeros = [](const Vector& like) { return Vector(like.size()); };
  Tensors grad{zeros(in.q),
               zeros(in.k),
               zeros(in.v),
               zeros(in.p),
               zeros(in.b),
               zeros(in.d),
               zeros(in.beta),
               zeros(in.beta_logit),
               zeros(in.g),
               zeros(in.a),
               zeros(in.A_log),
               zeros(in.dt_bias),
               zeros(in.initial_state)};
  for (std::int64_t n = 0; n < static_cast<std::int64_t>(sequences.size()); ++n) {
    for (std::int64_t j = 0; j < HV; ++j) {
      const std::int64_t state = (n * HV + j) * K * V;
      std::vector<Vector> h(sequences[n].num_tokens + 1, Vector(K * V));  // the state before each token
      if (!in.initial_state.empty()) std::copy_n(&in.initial_state[state], K * V, h[0].begin());
      Vector ignored(V), dh(K * V);
      for (std::int64_t t = 0; t < sequences[n].num_tokens; ++t) {
        h[t + 1] = h[t];
        step(token(sequences[n].first_row + t, j), h[t + 1], ignored.data());
      }
      if (!d_final_state.empty()) std::copy_n(&d_final_state[state], K * V, dh.begin());
      for (std::int64_t t = sequences[n].num_tokens; t-- > 0;) {
        const Token x = token(sequences[n].first_row + t, j);
        adjoint_of_step(x, h[t], &d_o[x.gate * V], j, dh, &grad.v[x.gate * V], grad);
      }
      if (!in.initial_state.empty()) std::copy(dh.begin(), dh.end(), grad.initial_state.begin() + state);
    }
  }
  return grad;
}

}  // namespace comba::reference
