// Token by token, the state updated in place. Included once per instruction set.
#if defined(COMBA_CPU_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_CPU_DECODE_INL_H_
#undef COMBA_CPU_DECODE_INL_H_
#else
#define COMBA_CPU_DECODE_INL_H_
#endif

#include "operators/delta_rule/cpu/chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace comba::delta_rule::cpu {
namespace HWY_NAMESPACE {

/// Columns of the state a token is worked on at a time: what a row of accumulators in registers holds.
constexpr int kDecodeVectors = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 8 : 4;

/// One token and `kVectors` vectors of columns: both products with the old state in one pass over it, then its update.
///     u = beta (v - seen S^T p),   o = scale (alpha S^T q + u (k . q)),   S = alpha S + k u^T
/// where seen is 1 for rule comba and alpha for gated_delta.
template <int kVectors>
HWY_INLINE void decode_columns(std::int64_t K, const float* q, const float* k, const float* p, float alpha, float seen,
                               float beta, float k_dot_q, float scale, float* HWY_RESTRICT state, std::int64_t stride,
                               const float* v, float* o) {
  const std::int64_t n = lanes();
  FloatVector recalled[kVectors], read[kVectors];
  for (int i = 0; i < kVectors; ++i) recalled[i] = read[i] = hn::Zero(kFloats);
  for (std::int64_t row = 0; row < K; ++row) {
    const FloatVector p_row = hn::Set(kFloats, p[row]), q_row = hn::Set(kFloats, q[row]);
    for (int i = 0; i < kVectors; ++i) {
      const FloatVector h = hn::LoadU(kFloats, state + row * stride + i * n);
      recalled[i] = hn::MulAdd(p_row, h, recalled[i]);
      read[i] = hn::MulAdd(q_row, h, read[i]);
    }
  }
  const FloatVector alphas = hn::Set(kFloats, alpha);
  for (int i = 0; i < kVectors; ++i) {
    const FloatVector error = hn::NegMulAdd(hn::Set(kFloats, seen), recalled[i], hn::Load(kFloats, v + i * n));
    recalled[i] = hn::Mul(hn::Set(kFloats, beta), error);  // from here on u
    const FloatVector sum = hn::MulAdd(alphas, read[i], hn::Mul(recalled[i], hn::Set(kFloats, k_dot_q)));
    hn::Store(hn::Mul(hn::Set(kFloats, scale), sum), kFloats, o + i * n);
  }
  for (std::int64_t row = 0; row < K; ++row) {
    const FloatVector k_row = hn::Set(kFloats, k[row]);
    for (int i = 0; i < kVectors; ++i) {
      float* h = state + row * stride + i * n;
      hn::StoreU(hn::MulAdd(k_row, recalled[i], hn::Mul(alphas, hn::LoadU(kFloats, h))), kFloats, h);
    }
  }
}

/// Memory of one worker.
struct DecodeScratch {
  Chunk chunk;
  Matrix v, o;  // [C, V]
  Matrix tail;  // [K, one vector] the last columns of the state, when they fill no vector

  static DecodeScratch carve(const Problem& x, Arena& arena) {
    return {Chunk::carve(x, arena), arena.matrix(kChunk, x.V), arena.matrix(kChunk, x.V), arena.matrix(x.K, kAlign)};
  }
};

/// Token i of the chunk; `state` is the first column of the slice.
inline HWY_NOINLINE void decode_token(const Head& head, const Chunk& c, std::int64_t i, float* state,
                                      std::int64_t stride, const DecodeScratch& s) {
  const std::int64_t K = head.x.K, n = lanes();
  const float *q = c.q.row(i), *k = c.k.row(i), *p = c.p.row(i);
  const float alpha = std::exp(c.g[i]), seen = head.x.options.rule == Rule::comba ? 1 : alpha;
  const float k_dot_q = dot(K, k, q);
  std::int64_t column = 0;
  const auto columns = [&](auto count, float* h, std::int64_t h_stride) {
    decode_columns<count.value>(K, q, k, p, alpha, seen, c.beta[i], k_dot_q, head.x.scale, h, h_stride,
                                s.v.row(i) + column, s.o.row(i) + column);
    column += count.value * n;
  };
  const auto whole = [&](auto count) {
    while (head.V - column >= count.value * n) columns(count, state + column, stride);
  };
  whole(std::integral_constant<int, kDecodeVectors>());
  whole(std::integral_constant<int, kDecodeVectors / 2>());
  whole(std::integral_constant<int, 1>());
  const std::int64_t left = head.V - column;
  if (left == 0) return;
  float* const rest = state + column;
  for (std::int64_t row = 0; row < K; ++row) {
    std::memset(s.tail.row(row), 0, kAlign * sizeof(float));
    std::memcpy(s.tail.row(row), rest + row * stride, left * sizeof(float));
  }
  columns(std::integral_constant<int, 1>(), s.tail.data, s.tail.stride);
  for (std::int64_t row = 0; row < K; ++row) std::memcpy(rest + row * stride, s.tail.row(row), left * sizeof(float));
}

inline HWY_NOINLINE void decode_head(const Head& head, const DeltaRuleDecode& args, DecodeScratch& s) {
  float* state = static_cast<float*>(args.state.data) + offset_of(args.state, head.n, head.value, 0, head.column);
  Chunk& c = s.chunk;
  for (std::int64_t first = 0; first < head.num_tokens(); first += kChunk) {
    c.first = first;
    c.rows = std::min(kChunk, head.num_tokens() - first);
    load_gates(head, c);
    load_directions(head, c);
    load_rows(head.x.in.v, head, head.value, first, c.rows, head.V, s.v, head.column);
    for (std::int64_t i = 0; i < c.rows; ++i) decode_token(head, c, i, state, args.state.strides[2], s);
    store_rows(args.o, head, head.value, first, c.rows, head.V, s.o, head.column);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::delta_rule::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
