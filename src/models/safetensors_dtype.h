#pragma once

#include <ATen/ATen.h>

#include <array>

namespace comba::models {

/// Element types by the names the safetensors format has for them.
struct SafetensorsDtype {
  const char* name;
  at::ScalarType type;
};

inline constexpr std::array kSafetensorsDtypes = {
    SafetensorsDtype{"F64", at::kDouble},    SafetensorsDtype{"F32", at::kFloat}, SafetensorsDtype{"F16", at::kHalf},
    SafetensorsDtype{"BF16", at::kBFloat16}, SafetensorsDtype{"I64", at::kLong},  SafetensorsDtype{"I32", at::kInt},
    SafetensorsDtype{"I16", at::kShort},     SafetensorsDtype{"I8", at::kChar},   SafetensorsDtype{"U8", at::kByte},
    SafetensorsDtype{"BOOL", at::kBool},
};

}  // namespace comba::models
