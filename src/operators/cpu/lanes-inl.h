// Loops over fp32 rows, a vector at a time. Included once per instruction set.
#if defined(COMBA_OPERATORS_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COMBA_OPERATORS_CPU_LANES_INL_H_
#undef COMBA_OPERATORS_CPU_LANES_INL_H_
#else
#define COMBA_OPERATORS_CPU_LANES_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace comba::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;
constexpr Floats kFloats;

/// Access to a whole vector of a row.
struct Whole {
  HWY_INLINE FloatVector load(const float* from) const { return hn::LoadU(kFloats, from); }
  HWY_INLINE void store(FloatVector value, float* to) const { hn::StoreU(value, kFloats, to); }
};

/// Access to the last `count` elements of a row; the other lanes read as zero. Nothing beyond them is touched.
struct Rest {
  std::size_t count;

  HWY_INLINE FloatVector load(const float* from) const {
    HWY_ALIGN float lanes[hn::MaxLanes(kFloats)] = {};
    std::memcpy(lanes, from, count * sizeof(float));
    return hn::Load(kFloats, lanes);
  }
  HWY_INLINE void store(FloatVector value, float* to) const {
    HWY_ALIGN float lanes[hn::MaxLanes(kFloats)];
    hn::Store(value, kFloats, lanes);
    std::memcpy(to, lanes, count * sizeof(float));
  }
};

/// Calls body(i, access) for the first element i of every vector of [0, count).
template <class Body>
HWY_INLINE void for_each_vector(std::int64_t count, const Body& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(kFloats));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(i, Whole{});
  if (i < count) body(i, Rest{static_cast<std::size_t>(count - i)});
}

HWY_INLINE float sum_of_lanes(FloatVector v) { return hn::GetLane(hn::SumOfLanes(kFloats, v)); }

/// 1 / (1 + e^-x), from e^-|x| so that nothing overflows. NaN stays NaN.
HWY_INLINE FloatVector sigmoid(FloatVector x) {
  const FloatVector one = hn::Set(kFloats, 1.0f);
  const FloatVector e = hn::Exp(kFloats, hn::Neg(hn::Abs(x)));
  const FloatVector of_magnitude = hn::Div(one, hn::Add(one, e));
  const FloatVector result = hn::IfThenElse(hn::Lt(x, hn::Zero(kFloats)), hn::Mul(e, of_magnitude), of_magnitude);
  return hn::IfThenElse(hn::IsNaN(x), x, result);
}

/// silu(x) = x sigmoid(x), and its derivative, from s = sigmoid(x).
HWY_INLINE FloatVector silu_derivative(FloatVector x, FloatVector s) {
  const FloatVector one = hn::Set(kFloats, 1.0f);
  return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
}

}  // namespace HWY_NAMESPACE
}  // namespace comba::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
