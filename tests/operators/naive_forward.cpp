#include "operators/naive_forward.h"

#include "base/half.h"
#include "operators/exact_forward.h"

namespace comba::test {
namespace {

using reference::DeltaRule;
using reference::Vector;

constexpr std::int64_t kChunk = 64;

struct Rounding {
  DType dtype;

  double operator()(double x) const {
    const float single = static_cast<float>(x);
    if (dtype == DType::bf16) return to_float(from_float<bf16>(single));
    return dtype == DType::f16 ? to_float(from_float<f16>(single)) : single;
  }
};

/// Row-major.
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t columns) : rows(rows), columns(columns), values(rows * columns) {}
  double& at(std::int64_t i, std::int64_t j) { return values[i * columns + j]; }
  double at(std::int64_t i, std::int64_t j) const { return values[i * columns + j]; }
  Matrix rounded(const Rounding& round) const {
    Matrix x = *this;
    for (double& value : x.values) value = round(value);
    return x;
  }
  Matrix transposed() const {
    Matrix x(columns, rows);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) x.at(j, i) = at(i, j);
    }
    return x;
  }
  std::int64_t rows, columns;
  Vector values;
};

Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t k = 0; k < a.columns; ++k) {
      for (std::int64_t j = 0; j < b.columns; ++j) c.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return c;
}

Matrix sum(const Matrix& a, double factor, const Matrix& b) {
  Matrix c = a;
  for (std::size_t i = 0; i < c.values.size(); ++i) c.values[i] += factor * b.values[i];
  return c;
}

Matrix scaled_rows(const Vector& factors, Matrix x) {
  for (std::int64_t i = 0; i < x.rows; ++i) {
    for (std::int64_t j = 0; j < x.columns; ++j) x.at(i, j) *= factors[i];
  }
  return x;
}

/// (I + A)^-1 of a strictly lower triangular A, by substitution.
Matrix inverse(const Matrix& a) {
  Matrix m(a.rows, a.rows);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    m.at(i, i) = 1;
    for (std::int64_t j = 0; j < i; ++j) {
      for (std::int64_t k = 0; k <= j; ++k) m.at(i, k) -= a.at(i, j) * m.at(j, k);
    }
  }
  return m;
}

/// What a chunk of one head brings.
struct Chunk {
  Chunk(std::int64_t count, std::int64_t K, std::int64_t V)
      : q(count, K), k(count, K), p(count, K), v(count, V), beta(count), G(count), G0(count) {}
  Matrix q, k, p, v;
  Vector beta, G, G0;
};

Chunk chunk_of(const DeltaRule& x, std::int64_t first, const Rounding& round) {
  const std::int64_t K = x.K, V = x.V, count = std::min(kChunk, x.sequences[0].num_tokens - first);
  const double b = x.in.b.empty() ? 1 : x.in.b[0], d = x.in.d.empty() ? 0 : x.in.d[0];
  const bool p_given = !x.in.p.empty();
  Chunk c(count, K, V);
  double G = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t t = first + i;
    const Vector k(&x.in.k[t * K], &x.in.k[t * K] + K);
    const Vector p = p_given ? Vector(&x.in.p[t * K], &x.in.p[t * K] + K) : reference::scaled(b, k);
    Vector q(&x.in.q[t * K], &x.in.q[t * K] + K);
    for (std::int64_t j = 0; j < K; ++j) q[j] -= d * (x.fla ? p : k)[j];
    const auto norm = [&](const Vector& y) {
      return x.l2norm ? 1 / std::sqrt(reference::dot(y, y) + x.l2norm_eps) : 1.0;
    };
    for (std::int64_t j = 0; j < K; ++j) {
      c.q.at(i, j) = round(norm(q) * q[j]);
      c.k.at(i, j) = round(norm(k) * k[j]);
      const double scalar_b = x.fla && x.l2norm ? norm(k) * k[j] : b * norm(k) * k[j];
      c.p.at(i, j) = round(p_given ? (x.fla ? norm(p) : 1) * p[j] : scalar_b);
    }
    for (std::int64_t j = 0; j < V; ++j) c.v.at(i, j) = x.in.v[t * V + j];
    c.beta[i] = x.in.beta.empty() ? x.beta_scale * reference::sigmoid(x.in.beta_logit[t]) : x.in.beta[t];
    double g = x.in.g.empty() ? -std::exp(x.in.A_log[0]) * reference::softplus(x.in.a[t] + x.in.dt_bias[0]) : x.in.g[t];
    g = std::max(g, -128.0);
    c.G0[i] = x.gated_delta ? G + g : G;
    c.G[i] = G += g;
  }
  return c;
}

/// Outputs of the chunk; the state is advanced.
Matrix advance(const Chunk& c, double scale, const Rounding& round, Matrix& state) {
  const std::int64_t count = c.q.rows;
  Matrix a = c.p * c.k.transposed(), read = c.q * c.k.transposed();
  Vector fed_back(count), seen(count), kept(count);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t j = 0; j < count; ++j) {
      a.at(i, j) = i > j ? c.beta[i] * a.at(i, j) * std::exp(c.G0[i] - c.G[j]) : 0;
      read.at(i, j) = i >= j ? scale * read.at(i, j) * std::exp(c.G[i] - c.G[j]) : 0;
    }
    fed_back[i] = c.beta[i] * std::exp(c.G0[i]);
    seen[i] = scale * std::exp(c.G[i]);
    kept[i] = std::exp(c.G[count - 1] - c.G[i]);
  }
  const Matrix m = inverse(a).rounded(round), s = state.rounded(round);
  const Matrix u = (m * scaled_rows(c.beta, c.v).rounded(round)).rounded(round);
  const Matrix w = (m * scaled_rows(fed_back, c.p).rounded(round)).rounded(round);
  const Matrix writes = sum(u, -1, w * s).rounded(round);
  const Matrix o = sum(scaled_rows(seen, c.q).rounded(round) * s, 1, read.rounded(round) * writes);
  const Matrix written = scaled_rows(kept, c.k).rounded(round).transposed() * writes;
  for (double& value : state.values) value *= std::exp(c.G[count - 1]);
  state = sum(state, 1, written);
  return o;
}

DeltaRule::Outputs forward_of_head(const DeltaRule& x, DType dtype) {
  const Rounding round{dtype};
  const std::int64_t T = x.sequences[0].num_tokens;
  Matrix state(x.K, x.V);
  if (!x.in.initial_state.empty()) state.values = x.in.initial_state;
  DeltaRule::Outputs out;
  for (std::int64_t first = 0; first < T; first += kChunk) {
    const Matrix o = advance(chunk_of(x, first, round), x.scale, round, state);
    out.o.insert(out.o.end(), o.values.begin(), o.values.end());
  }
  out.final_state = state.values;
  return out;
}

}  // namespace

Outputs naive_forward(Case& c) { return for_each_head(c, c.description.dtype, forward_of_head); }

}  // namespace comba::test
