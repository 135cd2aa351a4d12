#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

/// JSON from strangers: only sources of this folder include this header.
namespace comba::data {

/// Parses `text`. The result is discarded (is_discarded()) when it is no JSON or nests deeper than 64: some of the
/// library's functions recurse, and the depth of a file is not ours to choose.
nlohmann::json parse_json(std::string_view text);

/// A value as an error shows it: short, whatever it is.
std::string shown(const nlohmann::json& value);

}  // namespace comba::data
