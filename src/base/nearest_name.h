#pragma once

#include <span>
#include <string>
#include <string_view>

namespace comba {

/// The candidate that takes the fewest single-character insertions, deletions and substitutions to make from `name`,
/// for errors that say what was probably meant. The earlier one wins a tie; empty when there is no candidate.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace comba
