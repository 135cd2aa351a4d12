#include "operators/delta_rule/cuda/sm90/decode.h"

#include "operators/delta_rule/cuda/sm90/decode_launch.cuh"

namespace comba::delta_rule::cuda::sm90 {
namespace {

using bf16 = __nv_bfloat16;

/// Columns of the narrowest pieces of any shape.
constexpr std::int64_t kNarrowest = 32;

/// So that about 190 KB of states are on their way in or out of a multiprocessor, 64 KB of them out, in blocks
/// enough that one computes while another waits, and few enough for their registers.
template <class StateElement>
void choose_rows(const Problem& x, const DeltaRuleDecode& args);

template <>
void choose_rows<float>(const Problem& x, const DeltaRuleDecode& args) {
  if (x.K <= 64) return launch_decode<DecodeShape<float, 64, 128, 2, 3, 1, 4>>(x, args);
  if (x.K <= 128) return launch_decode<DecodeShape<float, 128, 128, 1, 3, 1, 4>>(x, args);
  launch_decode<DecodeShape<float, 256, 128, 1, 3, 1, 2>>(x, args);
}

template <>
void choose_rows<bf16>(const Problem& x, const DeltaRuleDecode& args) {
  if (x.K <= 64) return launch_decode<DecodeShape<bf16, 64, 128, 1, 6, 2, 4>>(x, args);
  if (x.K <= 128) return launch_decode<DecodeShape<bf16, 128, 128, 1, 6, 2, 2>>(x, args);
  launch_decode<DecodeShape<bf16, 256, 64, 1, 6, 2, 2>>(x, args);
}

}  // namespace

std::string decode_refusal(const Problem& x) {
  const bool one_in_f32 = x.state.dtype == DType::f32 && x.T == 1;
  if (one_in_f32) return "leaves single tokens to cuda.generic where states are f32, which is as fast";
  const std::int64_t pieces = x.B * x.HV * ((x.V + kNarrowest - 1) / kNarrowest);
  if (pieces >= std::int64_t{1} << 31) return "has at most 2^31 slices of heads";
  // There cuda.generic takes another kernel, with another order of sums.
  if (!generic::rows_of_vectors(generic::strided(x.state), x.V)) return "needs rows of states in pieces of 16 bytes";
  return state_map_refusal(x.state);
}

void decode(const Problem& x, const DeltaRuleDecode& args) {
  if (x.B == 0 || x.T == 0 || x.state.empty()) return;
  x.state.dtype == DType::f32 ? choose_rows<float>(x, args) : choose_rows<bf16>(x, args);
}

}  // namespace comba::delta_rule::cuda::sm90
