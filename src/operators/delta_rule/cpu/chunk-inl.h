// One chunk of one value head: what its tokens bring, and the triangular matrices between them (README.md section 4).
// Included once per instruction set.
#if defined(COMBA_CPU_CHUNK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_CPU_CHUNK_INL_H_
#undef COMBA_CPU_CHUNK_INL_H_
#else
#define COMBA_CPU_CHUNK_INL_H_
#endif

#include <cmath>
#include <cstring>

#include "operators/delta_rule/cpu/block-inl.h"
#include "operators/delta_rule/element.h"
#include "operators/delta_rule/problem.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

/// One value head of one sequence, or a slice of its columns: those of the state, of v and of o.
struct Head {
  const Problem& x;
  std::int64_t n;         // sequence
  std::int64_t value;     // value head
  std::int64_t key;       // its key head
  std::int64_t feedback;  // its head of p
  std::int64_t column;    // first of the slice
  std::int64_t V;         // columns of the slice
  Problem::Sequence tokens;

  Head(const Problem& x, std::int64_t n, std::int64_t value) : Head(x, n, value, 0, x.V) {}

  Head(const Problem& x, std::int64_t n, std::int64_t value, std::int64_t column, std::int64_t V)
      : x(x),
        n(n),
        value(value),
        key(value / x.group()),
        feedback(x.P_heads > 0 ? value / (x.HV / x.P_heads) : 0),
        column(column),
        V(V),
        tokens(x.sequence(n)) {}

  std::int64_t num_tokens() const { return tokens.end - tokens.begin; }
};

struct Chunk {
  std::int64_t first = 0;  // its first token, counted from the start of the sequence
  std::int64_t rows = 0;   // its tokens, at most C
  Matrix q, k, p;          // [C, K] corrected and normalised; q not scaled
  Matrix k_transposed;     // [K, C]
  Matrix read_decay;       // [C, C] D_ij = scale e^{G_i - G_j} on and below the diagonal
  Matrix feedback_decay;   // [C, C] E_ij = e^{G0_i - G_j} below the diagonal
  Matrix read;             // [C, C] D . (Q K^T)
  Matrix feedback;         // [C, C] E . (P K^T)
  float* beta;             // [C] step sizes
  float* g;                // [C] log decays, clamped
  float *rq, *rk, *rp;     // [C] factors of the normalisations
  float* from_start;       // [C] e^{G_i}
  float* before;           // [C] e^{G0_i}: the decay the feedback sees
  float* to_end;           // [C] e^{G_C - G_i}
  float* sum;              // [C] G_i, and what float leaves of it
  float* sum_rest;
  float* seen;  // [C] G0_i
  float* seen_rest;

  static Chunk carve(const Problem& x, Arena& arena) {
    Chunk c;
    for (Matrix* m : {&c.q, &c.k, &c.p}) *m = arena.matrix(kChunk, x.K);
    c.k_transposed = arena.matrix(round_up(x.K, 4), kChunk);
    for (Matrix* m : {&c.read_decay, &c.feedback_decay, &c.read, &c.feedback}) *m = arena.matrix(kChunk, kChunk);
    for (float** f : {&c.beta, &c.g, &c.rq, &c.rk, &c.rp, &c.from_start, &c.before, &c.to_end, &c.sum, &c.sum_rest,
                      &c.seen, &c.seen_rest}) {
      *f = arena.floats(kChunk);
    }
    return c;
  }

  float whole_decay() const { return from_start[rows - 1]; }  // e^{G_C}
};

template <class T>
HWY_INLINE void load_rows_as(const T* source, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                             const Matrix& out) {
  const std::int64_t padded = round_up(columns, kAlign);
  for (std::int64_t i = 0; i < rows; ++i) {
    float* HWY_RESTRICT row = out.row(i);
    const T* HWY_RESTRICT from = source + i * stride;
    for (std::int64_t j = 0; j < columns; ++j) row[j] = to_float(from[j]);
    for (std::int64_t j = columns; j < padded; ++j) row[j] = 0;
  }
}

/// Tokens [first, first + rows) of one head of a [B, T, heads, columns] tensor, as floats padded with zeros.
HWY_INLINE void load_rows(const ConstView& view, const Head& head, std::int64_t index, std::int64_t first,
                          std::int64_t rows, std::int64_t columns, const Matrix& out, std::int64_t column = 0) {
  const std::int64_t offset = offset_of(view, head.tokens.batch, head.tokens.begin + first, index, column);
  const std::int64_t stride = view.strides[1];
  if (view.dtype == DType::bf16) {
    load_rows_as(static_cast<const bf16*>(view.data) + offset, stride, rows, columns, out);
  } else if (view.dtype == DType::f16) {
    load_rows_as(static_cast<const f16*>(view.data) + offset, stride, rows, columns, out);
  } else {
    load_rows_as(static_cast<const float*>(view.data) + offset, stride, rows, columns, out);
  }
}

template <class T>
HWY_INLINE void store_rows_as(const Matrix& in, std::int64_t rows, std::int64_t columns, T* target,
                              std::int64_t stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* HWY_RESTRICT row = in.row(i);
    T* HWY_RESTRICT to = target + i * stride;
    for (std::int64_t j = 0; j < columns; ++j) to[j] = from_float<T>(row[j]);
  }
}

HWY_INLINE void store_rows(const View& view, const Head& head, std::int64_t index, std::int64_t first,
                           std::int64_t rows, std::int64_t columns, const Matrix& in, std::int64_t column = 0) {
  if (!view.given()) return;
  const std::int64_t offset = offset_of(view, head.tokens.batch, head.tokens.begin + first, index, column);
  const std::int64_t stride = view.strides[1];
  if (view.dtype == DType::bf16) {
    store_rows_as(in, rows, columns, static_cast<bf16*>(view.data) + offset, stride);
  } else if (view.dtype == DType::f16) {
    store_rows_as(in, rows, columns, static_cast<f16*>(view.data) + offset, stride);
  } else {
    store_rows_as(in, rows, columns, static_cast<float*>(view.data) + offset, stride);
  }
}

/// The state of one head or slice, [K, V], out of and into a [N, HV, K, V] tensor.
HWY_INLINE void load_state(const ConstView& view, const Head& head, const Matrix& state) {
  const std::int64_t padded = round_up(head.V, kAlign);
  for (std::int64_t i = 0; i < head.x.K; ++i) {
    std::memset(state.row(i), 0, padded * sizeof(float));
    if (!view.given()) continue;
    const float* from = static_cast<const float*>(view.data) + offset_of(view, head.n, head.value, i, head.column);
    std::memcpy(state.row(i), from, head.V * sizeof(float));
  }
}

HWY_INLINE void store_state(const Matrix& state, const Head& head, const View& view) {
  if (!view.given()) return;
  for (std::int64_t i = 0; i < head.x.K; ++i) {
    float* to = static_cast<float*>(view.data) + offset_of(view, head.n, head.value, i, head.column);
    std::memcpy(to, state.row(i), head.V * sizeof(float));
  }
}

HWY_INLINE float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
HWY_INLINE float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

/// beta and g of the chunk's tokens. g is clamped to -128: its exponential is 0 there, and -inf - -inf never arises.
HWY_INLINE void load_gates(const Head& head, Chunk& c) {
  const DeltaRuleInputs& in = head.x.in;
  const ConstView& step = in.beta.given() ? in.beta : in.beta_logit;
  const ConstView& decay = in.g.given() ? in.g : in.a;
  const float rate = in.a.given() ? -std::exp(load(in.A_log, offset_of(in.A_log, head.value))) : 0;
  const float bias = in.a.given() ? load(in.dt_bias, offset_of(in.dt_bias, head.value)) : 0;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const std::int64_t token = head.tokens.begin + c.first + i;
    const float s = load(step, offset_of(step, head.tokens.batch, token, head.value));
    const float a = load(decay, offset_of(decay, head.tokens.batch, token, head.value));
    c.beta[i] = in.beta.given() ? s : head.x.options.beta_scale * sigmoid(s);
    c.g[i] = std::max(in.g.given() ? a : rate * softplus(a + bias), -128.0f);
  }
}

HWY_INLINE float normalise(const DeltaRuleOptions& options, std::int64_t columns, float* row) {
  if (!options.l2norm) return 1;
  const float factor = 1 / std::sqrt(dot(columns, row, row) + options.l2norm_eps);
  scale_row(columns, factor, row, row);
  return factor;
}

/// q, k, p as the convention makes them of the raw rows.
HWY_INLINE void load_directions(const Head& head, Chunk& c) {
  const Problem& x = head.x;
  const bool fla = x.options.convention == Convention::fla, p_given = x.in.p.given();
  const float b = x.in.b.given() ? load(x.in.b, offset_of(x.in.b, head.key)) : 1;
  const float d = x.in.d.given() ? load(x.in.d, offset_of(x.in.d, head.key)) : 0;
  load_rows(x.in.q, head, head.key, c.first, c.rows, x.K, c.q);
  load_rows(x.in.k, head, head.key, c.first, c.rows, x.K, c.k);
  if (p_given) load_rows(x.in.p, head, head.feedback, c.first, c.rows, x.K, c.p);
  const Matrix& correction = fla && p_given ? c.p : c.k;
  const float strength = fla && !p_given ? d * b : d;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    if (strength != 0) add_scaled_row(x.K, -strength, correction.row(i), c.q.row(i));
    c.rq[i] = normalise(x.options, x.K, c.q.row(i));
    c.rk[i] = normalise(x.options, x.K, c.k.row(i));
    c.rp[i] = p_given && fla ? normalise(x.options, x.K, c.p.row(i)) : 1;
    if (!p_given) scale_row(x.K, fla && x.options.l2norm ? 1 : b, c.k.row(i), c.p.row(i));
  }
}

/// The decays between tokens. Sums run in double; differences of two sums keep what float would round away.
HWY_INLINE void load_decays(const Head& head, Chunk& c) {
  const bool undecayed = head.x.options.rule == Rule::comba;  // the feedback sees the state before this token's decay
  double sum = 0;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const double seen = undecayed ? sum : sum + c.g[i];
    sum += c.g[i];
    c.sum[i] = static_cast<float>(sum);
    c.sum_rest[i] = static_cast<float>(sum - c.sum[i]);
    c.seen[i] = static_cast<float>(seen);
    c.seen_rest[i] = static_cast<float>(seen - c.seen[i]);
  }
  for (std::int64_t i = c.rows; i < kChunk; ++i) c.sum[i] = c.sum_rest[i] = c.seen[i] = c.seen_rest[i] = 0;
  const FloatVector whole = hn::Set(kFloats, c.sum[c.rows - 1]), rest = hn::Set(kFloats, c.sum_rest[c.rows - 1]);
  for (std::int64_t i = 0; i < c.rows; i += lanes()) {
    const FloatVector high = hn::Load(kFloats, c.sum + i), low = hn::Load(kFloats, c.sum_rest + i);
    const FloatVector seen = hn::Add(hn::Load(kFloats, c.seen + i), hn::Load(kFloats, c.seen_rest + i));
    hn::Store(exp_nonpositive(hn::Add(high, low)), kFloats, c.from_start + i);
    hn::Store(exp_nonpositive(seen), kFloats, c.before + i);
    hn::Store(exp_nonpositive(hn::Add(hn::Sub(whole, high), hn::Sub(rest, low))), kFloats, c.to_end + i);
  }
}

/// out_ij = factor e^{upper_i - sum_j} for the columns up to the end of row i's diagonal block.
/// Columns j > i - skip are zero: skip 0 keeps the diagonal, skip 1 leaves it out.
HWY_INLINE void decay_matrix(const Chunk& c, const float* upper, const float* upper_rest, int skip, float factor,
                             const Matrix& out) {
  const hn::RebindToSigned<Floats> ints;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const FloatVector high = hn::Set(kFloats, upper[i]), low = hn::Set(kFloats, upper_rest[i]);
    for (std::int64_t j = 0; j < round_up(i + 1, kBlock); j += lanes()) {
      const FloatVector difference =
          hn::Add(hn::Sub(high, hn::Load(kFloats, c.sum + j)), hn::Sub(low, hn::Load(kFloats, c.sum_rest + j)));
      const auto column = hn::Iota(ints, static_cast<std::int32_t>(j));
      const auto kept = hn::Lt(column, hn::Set(ints, static_cast<std::int32_t>(i + 1 - skip)));
      const FloatVector value = hn::Mul(hn::Set(kFloats, factor), exp_nonpositive(difference));
      hn::Store(hn::IfThenElseZero(hn::RebindMask(kFloats, kept), value), kFloats, out.row(i) + j);
    }
  }
}

/// y_ij = decay_ij y_ij on and below the diagonal; the rest of the diagonal blocks becomes zero, whatever it held.
HWY_INLINE void apply_decay(const Chunk& c, const Matrix& decay, int skip, const Matrix& y) {
  const hn::RebindToSigned<Floats> ints;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < round_up(i + 1, kBlock); j += lanes()) {
      const auto column = hn::Iota(ints, static_cast<std::int32_t>(j));
      const auto kept = hn::Lt(column, hn::Set(ints, static_cast<std::int32_t>(i + 1 - skip)));
      const FloatVector value = hn::Mul(hn::Load(kFloats, decay.row(i) + j), hn::Load(kFloats, y.row(i) + j));
      hn::Store(hn::IfThenElseZero(hn::RebindMask(kFloats, kept), value), kFloats, y.row(i) + j);
    }
  }
}

/// Everything about a chunk that does not depend on the state.
inline HWY_NOINLINE void prepare(const Head& head, std::int64_t first, Chunk& c) {
  c.first = first;
  c.rows = std::min(kChunk, head.num_tokens() - first);
  load_gates(head, c);
  load_directions(head, c);
  load_decays(head, c);
  transpose(c.rows, head.x.K, c.k, c.k_transposed);
  decay_matrix(c, c.sum, c.sum_rest, 0, head.x.scale, c.read_decay);
  decay_matrix(c, c.seen, c.seen_rest, 1, 1, c.feedback_decay);
  multiply_to_lower(c.rows, head.x.K, c.q, c.k_transposed, c.read);
  multiply_to_lower(c.rows, head.x.K, c.p, c.k_transposed, c.feedback);
  apply_decay(c, c.read_decay, 0, c.read);
  apply_decay(c, c.feedback_decay, 1, c.feedback);
}

/// Rows of `x` times one factor each, times `factor`.
HWY_INLINE void scale_rows(const Chunk& c, std::int64_t columns, const float* factors, float factor, const Matrix& x,
                           const Matrix& y) {
  for (std::int64_t i = 0; i < c.rows; ++i) scale_row(columns, factor * factors[i], x.row(i), y.row(i));
}

/// What each token writes: on entry `writes` holds V; on return diag(beta) error, where
/// error = V - diag(e^{G0}) P S - feedback writes. `errors`, when given, receives the errors. `scratch` is [C, K].
inline HWY_NOINLINE void solve_writes(const Head& head, const Chunk& c, const Matrix& state, const Matrix& scratch,
                                      const Matrix& writes, const Matrix* errors) {
  scale_rows(c, head.x.K, c.before, 1, c.p, scratch);
  multiply(c.rows, head.V, head.x.K, plain(scratch), state, writes, Into::kSubtract);
  for (std::int64_t i = 0; i < c.rows; i += kBlock) {
    const std::int64_t height = std::min(kBlock, c.rows - i);
    if (i > 0) {
      multiply(height, head.V, i, plain(c.feedback, i), writes.data, writes.stride, writes.row(i), writes.stride,
               Into::kSubtract);
    }
    solve_block(height, head.V, plain(c.feedback, i, i), c.beta + i, writes.row(i), writes.stride,
                errors ? errors->row(i) : nullptr);
  }
}

/// S = e^{G_C} S + (diag(e^{G_C - G}) K)^T writes.
inline HWY_NOINLINE void advance_state(const Head& head, const Chunk& c, const Matrix& writes, const Matrix& scratch,
                                       const Matrix& state) {
  scale_rows(c, head.x.K, c.to_end, 1, c.k, scratch);
  multiply(head.x.K, head.V, c.rows, transposed(scratch), writes, state, Into::kAdd, c.whole_decay());
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
