#pragma once

#include <string>

namespace comba {

// For command lines: what is wrong with a flag's value, or nothing.

std::string must_be_positive(const std::string& value);
std::string must_not_be_negative(const std::string& value);

}  // namespace comba
