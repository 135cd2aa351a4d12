// Chunked backward of the value heads of one key head (README.md section 5). Included once per instruction set.
#if defined(COMBA_CPU_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_CPU_BACKWARD_INL_H_
#undef COMBA_CPU_BACKWARD_INL_H_
#else
#define COMBA_CPU_BACKWARD_INL_H_
#endif

#include "operators/delta_rule/cpu/chunk-inl.h"
#include "operators/delta_rule/cpu/partial_sums.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

/// Memory of one worker.
struct BackwardScratch {
  Chunk chunk;
  Matrix state;                   // [K, V] S while states are re-run, then dS
  Matrix writes;                  // [C, V] diag(beta) errors
  Matrix d_o, d_writes, dv;       // [C, V]
  Matrix scaled_v;                // [C, V]
  Matrix writes_transposed;       // [V, C]
  Matrix state_transposed;        // [V, K]
  Matrix d_read, d_feedback;      // [C, C]
  Matrix dq, dk, dp, scaled;      // [C, K]
  Matrix all_dq, all_dk, all_dp;  // [T, K] of the normalised rows, summed over the value heads
  Matrix states;                  // [chunks * K, V] the state before each chunk
  Matrix errors;                  // [T, V]

  static BackwardScratch carve(const Problem& x, Arena& arena) {
    std::int64_t longest = 0;
    for (std::int64_t n = 0; n < x.N; ++n) longest = std::max(longest, x.sequence(n).end - x.sequence(n).begin);
    BackwardScratch s;
    s.chunk = Chunk::carve(x, arena);
    s.state = arena.matrix(x.K, x.V);
    for (Matrix* m : {&s.writes, &s.d_o, &s.d_writes, &s.dv, &s.scaled_v}) *m = arena.matrix(kChunk, x.V);
    s.writes_transposed = arena.matrix(round_up(x.V, 4), kChunk);
    s.state_transposed = arena.matrix(round_up(x.V, 4), x.K);
    for (Matrix* m : {&s.d_read, &s.d_feedback}) *m = arena.matrix(kChunk, kChunk);
    for (Matrix* m : {&s.dq, &s.dk, &s.dp, &s.scaled}) *m = arena.matrix(kChunk, x.K);
    for (Matrix* m : {&s.all_dq, &s.all_dk, &s.all_dp}) *m = arena.matrix(longest, x.K);
    s.states = arena.matrix(num_chunks(longest) * x.K, x.V);
    s.errors = arena.matrix(longest, x.V);
    return s;
  }

  Matrix saved_state(const Problem& x, std::int64_t first) const {
    return {states.row(first / kChunk * x.K), states.stride};
  }
  Matrix saved_errors(std::int64_t first) const { return {errors.row(first), errors.stride}; }
};

/// Runs the states again, keeping the one before each chunk and every token's error.
inline HWY_NOINLINE void rerun_states(const Head& head, BackwardScratch& s) {
  const Problem& x = head.x;
  load_state(x.in.initial_state, head, s.state);
  for (std::int64_t first = 0; first < head.num_tokens(); first += kChunk) {
    prepare(head, first, s.chunk);
    std::memcpy(s.saved_state(x, first).data, s.state.data, x.K * s.state.stride * sizeof(float));
    load_rows(x.in.v, head, head.value, first, s.chunk.rows, x.V, s.writes);
    const Matrix errors = s.saved_errors(first);
    solve_writes(head, s.chunk, s.state, s.scaled, s.writes, &errors);
    advance_state(head, s.chunk, s.writes, s.scaled, s.state);
  }
}

/// Gradients of the errors (into d_writes: dR of the README) and of V (into dv) from those of O and of the state after
/// the chunk.
inline HWY_NOINLINE void backward_writes(const Problem& x, const Chunk& c, BackwardScratch& s) {
  multiply_lower_transposed(c.rows, x.V, c.read, s.d_o, s.d_writes, Into::kSet);
  scale_rows(c, x.K, c.to_end, 1, c.k, s.scaled);
  multiply(c.rows, x.V, x.K, plain(s.scaled), s.state, s.d_writes, Into::kAdd);
  for (std::int64_t i = (c.rows - 1) / kBlock * kBlock; i >= 0; i -= kBlock) {
    const std::int64_t height = std::min(kBlock, c.rows - i), below = i + height;
    if (below < c.rows) {
      multiply(height, x.V, c.rows - below, transposed(c.feedback, below, i), s.dv.row(below), s.dv.stride,
               s.d_writes.row(i), s.d_writes.stride, Into::kSubtract);
    }
    solve_block_transposed(height, x.V, plain(c.feedback, i, i), c.beta + i, s.d_writes.row(i), s.d_writes.stride);
    for (std::int64_t r = i; r < below; ++r) scale_row(x.V, c.beta[r], s.d_writes.row(r), s.dv.row(r));
  }
}

/// Gradients of G (`d_sum`) and G0 (`d_seen`) through the decays between tokens. Summed in double: a product that is
/// added for one token and taken back for another must cancel to the last digit.
inline HWY_NOINLINE void backward_decay_matrices(const Chunk& c, const BackwardScratch& s, double* d_sum,
                                                 double* d_seen) {
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const float *d_read = s.d_read.row(i), *read = c.read.row(i);
    const float *d_feedback = s.d_feedback.row(i), *feedback = c.feedback.row(i);
    double row_read = 0, row_feedback = 0;
    for (std::int64_t j = 0; j < i; ++j) {
      const double through_read = static_cast<double>(d_read[j]) * read[j];
      const double through_feedback = static_cast<double>(c.beta[i] * d_feedback[j]) * feedback[j];
      row_read += through_read;
      row_feedback += through_feedback;
      d_sum[j] -= through_read + through_feedback;
    }
    d_sum[i] += row_read;
    d_seen[i] += row_feedback;
  }
}

/// Gradients of the normalised q, k, p and of G, G0; then dS of the state before the chunk, in place.
inline HWY_NOINLINE void backward_directions(const Problem& x, const Chunk& c, BackwardScratch& s, double* d_sum,
                                             double* d_seen) {
  transpose(c.rows, x.V, s.writes, s.writes_transposed);
  multiply_to_lower(c.rows, x.V, s.d_o, s.writes_transposed, s.d_read);
  multiply_to_lower(c.rows, x.V, s.d_writes, s.writes_transposed, s.d_feedback);
  for (std::int64_t i = 0; i < c.rows; ++i)
    scale_row(round_up(i + 1, kBlock), -1, s.d_feedback.row(i), s.d_feedback.row(i));
  backward_decay_matrices(c, s, d_sum, d_seen);
  apply_decay(c, c.read_decay, 0, s.d_read);
  apply_decay(c, c.feedback_decay, 1, s.d_feedback);
  for (std::int64_t i = 0; i < c.rows; ++i) {
    scale_row(round_up(i + 1, kBlock), c.beta[i], s.d_feedback.row(i), s.d_feedback.row(i));
  }

  // Through the state after the chunk: dK, and the token's share in what is left at the end.
  transpose(x.K, x.V, s.state, s.state_transposed);
  scale_rows(c, x.V, c.to_end, 1, s.writes, s.scaled_v);
  multiply(c.rows, x.K, x.V, plain(s.scaled_v), s.state_transposed, s.dk, Into::kSet);
  const Matrix before = s.saved_state(x, c.first);
  double at_end = 0;
  for (std::int64_t i = 0; i < x.K; ++i) at_end += dot(x.V, s.state.row(i), before.row(i));
  at_end *= c.whole_decay();
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const double share = dot(x.K, c.k.row(i), s.dk.row(i));
    d_sum[i] -= share;
    at_end += share;
  }
  d_sum[c.rows - 1] += at_end;

  // Through the state before the chunk: what O reads of it, what the feedback sees of it, and its own gradient.
  transpose(x.K, x.V, before, s.state_transposed);
  scale_rows(c, x.V, c.from_start, x.scale, s.d_o, s.scaled_v);
  multiply(c.rows, x.K, x.V, plain(s.scaled_v), s.state_transposed, s.dq, Into::kSet);
  multiply(x.K, x.V, c.rows, transposed(c.q), s.scaled_v, s.state, Into::kAdd, c.whole_decay());
  scale_rows(c, x.V, c.before, -1, s.dv, s.scaled_v);
  multiply(c.rows, x.K, x.V, plain(s.scaled_v), s.state_transposed, s.dp, Into::kSet);
  multiply(x.K, x.V, c.rows, transposed(c.p), s.scaled_v, s.state, Into::kAdd);
  for (std::int64_t i = 0; i < c.rows; ++i) {
    d_sum[i] += dot(x.K, c.q.row(i), s.dq.row(i));
    d_seen[i] += dot(x.K, c.p.row(i), s.dp.row(i));
  }

  // Between the tokens of the chunk.
  multiply_lower(c.rows, x.K, s.d_read, c.k, s.dq, Into::kAdd);
  multiply_lower(c.rows, x.K, s.d_feedback, c.k, s.dp, Into::kAdd);
  multiply_lower_transposed(c.rows, x.K, s.d_read, c.q, s.dk, Into::kAdd);
  multiply_lower_transposed(c.rows, x.K, s.d_feedback, c.p, s.dk, Into::kAdd);
}

/// Stores the gradients of a chunk's gates: dbeta_i = <dR_i, error_i>, dg_t = sum_{i>=t} dG_i + sum_{i>(=)t} dG0_i.
inline HWY_NOINLINE void backward_gates(const Head& head, const DeltaRuleBackward& args, const BackwardScratch& s,
                                        const double* d_sum, const double* d_seen, PartialSums& sums) {
  const Problem& x = head.x;
  const Chunk& c = s.chunk;
  const DeltaRuleInputs& in = x.in;
  const Matrix errors = s.saved_errors(c.first);
  const bool undecayed = x.options.rule == Rule::comba;
  double later = 0;
  for (std::int64_t i = c.rows; i-- > 0;) {
    const std::int64_t batch = head.tokens.batch, token = head.tokens.begin + c.first + i;
    const auto at = [&](const auto& view) { return offset_of(view, batch, token, head.value); };
    const float dbeta = dot(x.V, s.d_writes.row(i), errors.row(i));
    if (args.dbeta.given()) store(args.dbeta, at(args.dbeta), dbeta);
    if (args.dbeta_logit.given()) {
      const float logit = load(in.beta_logit, at(in.beta_logit));
      store(args.dbeta_logit, at(args.dbeta_logit), dbeta * x.options.beta_scale * sigmoid(logit) * sigmoid(-logit));
    }
    double dg = later + d_sum[i] + (undecayed ? 0 : d_seen[i]);
    later += d_sum[i] + d_seen[i];
    if (c.g[i] <= -128) dg = 0;  // clamped
    if (args.dg.given()) store(args.dg, at(args.dg), static_cast<float>(dg));
    if (in.a.given()) {
      const float slope = sigmoid(load(in.a, at(in.a)) + load(in.dt_bias, offset_of(in.dt_bias, head.value)));
      const double da = -dg * std::exp(load(in.A_log, offset_of(in.A_log, head.value))) * slope;
      if (args.da.given()) store(args.da, at(args.da), static_cast<float>(da));
      sums.dA_log(head.n, head.value) += dg * c.g[i];
      sums.ddt_bias(head.n, head.value) += da;
    }
  }
}

/// Gradient of x from that of its normalised row y = r x: r (dy - y <y, dy>). In place in dy.
HWY_INLINE void denormalise(const DeltaRuleOptions& options, std::int64_t columns, float r, const float* y, float* dy) {
  if (!options.l2norm) return;
  const float along = dot(columns, y, dy);
  add_scaled_row(columns, -along, y, dy);
  scale_row(columns, r, dy, dy);
}

/// From gradients of the normalised rows of a chunk, in s.dq, s.dk, s.dp, to those of the raw ones, in place.
/// What p = b k, and the correction, add to dk, dp, db and dd is README.md section 3.
inline HWY_NOINLINE void backward_convention(const Head& head, const Chunk& c, BackwardScratch& s, PartialSums& sums) {
  const Problem& x = head.x;
  const bool fla = x.options.convention == Convention::fla, p_given = x.in.p.given();
  const float b = x.in.b.given() ? load(x.in.b, offset_of(x.in.b, head.key)) : 1;
  const float d = x.in.d.given() ? load(x.in.d, offset_of(x.in.d, head.key)) : 0;
  const bool b_acts = !p_given && !(fla && x.options.l2norm);
  const bool along_p = fla && p_given;  // the query is corrected with p, else with k
  double db = 0, dd = 0;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    float *dq = s.dq.row(i), *dk = s.dk.row(i), *dp = s.dp.row(i);
    if (!p_given) {
      if (b_acts) db += dot(x.K, c.k.row(i), dp);
      add_scaled_row(x.K, b_acts ? b : 1, dp, dk);
    } else if (fla) {
      denormalise(x.options, x.K, c.rp[i], c.p.row(i), dp);
    }
    denormalise(x.options, x.K, c.rq[i], c.q.row(i), dq);
    denormalise(x.options, x.K, c.rk[i], c.k.row(i), dk);
    const double along = along_p ? dot(x.K, dq, c.p.row(i)) / c.rp[i] : dot(x.K, dq, c.k.row(i)) / c.rk[i];
    const float strength = fla && !p_given ? b : 1;
    dd -= strength * along;
    if (fla && !p_given) db -= d * along;
    add_scaled_row(x.K, -d * strength, dq, along_p ? dp : dk);
  }
  sums.db(head.n, head.key) += db;
  sums.dd(head.n, head.key) += dd;
}

HWY_INLINE void copy_rows(const Problem& x, std::int64_t rows, const Matrix& from, const Matrix& to) {
  for (std::int64_t i = 0; i < rows; ++i) scale_row(x.K, 1, from.row(i), to.row(i));
}

/// Adds the chunk's rows to the key head's; its first value head sets them.
HWY_INLINE void collect(const Problem& x, bool set, std::int64_t rows, const Matrix& from, const Matrix& all) {
  if (set) return copy_rows(x, rows, from, all);
  for (std::int64_t i = 0; i < rows; ++i) add_scaled_row(x.K, 1, from.row(i), all.row(i));
}

inline HWY_NOINLINE void backward_value_head(const Head& head, const DeltaRuleBackward& args, BackwardScratch& s,
                                             PartialSums& sums) {
  const Problem& x = head.x;
  rerun_states(head, s);
  load_state(args.d_final_state, head, s.state);
  for (std::int64_t first = (num_chunks(head.num_tokens()) - 1) * kChunk; first >= 0; first -= kChunk) {
    prepare(head, first, s.chunk);
    const Chunk& c = s.chunk;
    double d_sum[kChunk] = {}, d_seen[kChunk] = {};
    load_rows(args.do_, head, head.value, first, c.rows, x.V, s.d_o);
    scale_rows(c, x.V, c.beta, 1, s.saved_errors(first), s.writes);
    backward_writes(x, c, s);
    store_rows(args.dv, head, head.value, first, c.rows, x.V, s.dv);
    backward_directions(x, c, s, d_sum, d_seen);
    backward_gates(head, args, s, d_sum, d_seen, sums);
    const bool first_of_group = head.value % x.group() == 0;
    collect(x, first_of_group, c.rows, s.dq, {s.all_dq.row(first), s.all_dq.stride});
    collect(x, first_of_group, c.rows, s.dk, {s.all_dk.row(first), s.all_dk.stride});
    const bool own_p = x.P_heads == x.HV;
    collect(x, first_of_group || own_p, c.rows, s.dp, {s.all_dp.row(first), s.all_dp.stride});
    if (own_p && x.P_heads != x.H && args.dp.given()) {
      if (x.options.convention == Convention::fla) {
        for (std::int64_t i = 0; i < c.rows; ++i) denormalise(x.options, x.K, c.rp[i], c.p.row(i), s.dp.row(i));
      }
      store_rows(args.dp, head, head.feedback, first, c.rows, x.K, s.dp);
    }
  }
  store_state(s.state, head, args.d_initial_state);
}

/// All gradients of one key head of one sequence.
inline HWY_NOINLINE void backward_key_head(const Problem& x, std::int64_t n, std::int64_t key,
                                           const DeltaRuleBackward& args, BackwardScratch& s, PartialSums& sums) {
  for (std::int64_t j = 0; j < x.group(); ++j) {
    backward_value_head(Head(x, n, key * x.group() + j), args, s, sums);
  }
  const Head head(x, n, key * x.group());
  const bool dp_stored = x.P_heads != x.H;  // each value head stored its own
  Chunk& c = s.chunk;
  for (std::int64_t first = 0; first < head.num_tokens(); first += kChunk) {
    c.first = first;
    c.rows = std::min(kChunk, head.num_tokens() - first);
    load_directions(head, c);
    copy_rows(x, c.rows, {s.all_dq.row(first), s.all_dq.stride}, s.dq);
    copy_rows(x, c.rows, {s.all_dk.row(first), s.all_dk.stride}, s.dk);
    copy_rows(x, c.rows, {s.all_dp.row(first), s.all_dp.stride}, s.dp);
    backward_convention(head, c, s, sums);
    store_rows(args.dq, head, key, first, c.rows, x.K, s.dq);
    store_rows(args.dk, head, key, first, c.rows, x.K, s.dk);
    if (!dp_stored) store_rows(args.dp, head, key, first, c.rows, x.K, s.dp);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
