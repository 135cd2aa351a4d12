#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "operators/delta_rule_case.h"

/// The calls that the tests of graph replay make.
namespace comba::test {

inline Description replayed_call(DType dtype, std::uint64_t seed, std::vector<std::int64_t> cu_seqlens) {
  Description x;
  x.dtype = dtype;
  x.T = 300;
  x.H = 2;
  x.HV = 4;
  x.K = x.V = 128;
  x.seed = seed;
  x.cu_seqlens = std::move(cu_seqlens);
  return x;
}

/// The values of another case of the same shapes, in the memory of `to`.
inline void copy_values(Case& to, Case& from) {
  for (const auto& [mine, other] : {std::pair{&to.q, &from.q},
                                    {&to.k, &from.k},
                                    {&to.v, &from.v},
                                    {&to.b, &from.b},
                                    {&to.d, &from.d},
                                    {&to.beta_logit, &from.beta_logit},
                                    {&to.a, &from.a},
                                    {&to.A_log, &from.A_log},
                                    {&to.dt_bias, &from.dt_bias},
                                    {&to.initial_state, &from.initial_state},
                                    {&to.cu_seqlens, &from.cu_seqlens},
                                    {&to.d_o, &from.d_o},
                                    {&to.d_final_state, &from.d_final_state}}) {
    ASSERT_EQ(mine->sizes(), other->sizes());
    ASSERT_EQ(mine->dtype(), other->dtype());
    if (mine->given()) std::memcpy(mine->data(), other->data(), mine->count() * size_of(mine->dtype()));
  }
}

}  // namespace comba::test
