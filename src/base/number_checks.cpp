#include "base/number_checks.h"

#include <cstdlib>

namespace comba {
namespace {

/// Whether the whole text is a number; NaN is none.
bool is_number(const std::string& text, double& number) {
  char* end = nullptr;
  number = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0' && number == number;
}

}  // namespace

std::string must_be_positive(const std::string& value) {
  double number = 0;
  return is_number(value, number) && number > 0 ? "" : "must be a number above 0; got " + value;
}

std::string must_not_be_negative(const std::string& value) {
  double number = 0;
  return is_number(value, number) && number >= 0 ? "" : "must be a number of at least 0; got " + value;
}

}  // namespace comba
