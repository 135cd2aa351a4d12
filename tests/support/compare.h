#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

/// Comparison of a computed tensor with its reference.
namespace comba::test {

/// sqrt(mean (x - reference)^2) / sqrt(mean reference^2); 0 when both are zero, infinity when only the reference is.
inline double rms_ratio(const std::vector<double>& x, const std::vector<double>& reference) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    error += (x[i] - reference[i]) * (x[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  if (error == 0) return 0;
  return std::sqrt(error / norm);
}

/// "[1, 0, 3]" for element `index` of a row-major tensor.
inline std::string coordinate(std::size_t index, const std::vector<std::int64_t>& sizes) {
  std::string text = "]";
  for (std::size_t i = sizes.size(); i-- > 0;) {
    text = std::to_string(index % sizes[i]) + text;
    if (i > 0) text = ", " + text;
    index /= sizes[i];
  }
  return "[" + text;
}

/// Whether the RMS ratio is at most `tolerance` and NaN, +inf and -inf stand at the same places.
/// A failure names the worst element with both values; `what` and `rerun` say which tensor of which case.
inline testing::AssertionResult close(const std::vector<double>& x, const std::vector<double>& reference,
                                      const std::vector<std::int64_t>& sizes, double tolerance, const std::string& what,
                                      const std::string& rerun) {
  if (x.size() != reference.size()) {
    return testing::AssertionFailure() << what << ": " << x.size() << " elements, expected " << reference.size() << "; "
                                       << rerun;
  }
  std::size_t worst = 0;
  double worst_error = -1;
  std::vector<double> finite_x, finite_reference;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i]) || !std::isfinite(reference[i])) {
      if ((std::isnan(x[i]) && std::isnan(reference[i])) || x[i] == reference[i]) continue;
      return testing::AssertionFailure() << what << coordinate(i, sizes) << " is " << x[i] << ", expected "
                                         << reference[i] << "; " << rerun;
    }
    finite_x.push_back(x[i]);
    finite_reference.push_back(reference[i]);
    if (std::abs(x[i] - reference[i]) > worst_error) {
      worst = i;
      worst_error = std::abs(x[i] - reference[i]);
    }
  }
  const double ratio = rms_ratio(finite_x, finite_reference);
  if (ratio <= tolerance) return testing::AssertionSuccess();
  return testing::AssertionFailure() << what << ": RMS ratio " << ratio << ", at most " << tolerance << "; worst at "
                                     << coordinate(worst, sizes) << ": " << x[worst] << ", expected "
                                     << reference[worst] << "; " << rerun;
}

}  // namespace comba::test
