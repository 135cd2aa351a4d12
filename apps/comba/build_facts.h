#pragma once

#include <string>

namespace comba::cli {

/// Version, commit, compiler and what was compiled in, one fact a line; for people, the first line alone says most.
std::string version_text();

/// The same as one JSON object: version, commit ("unknown" outside a git tree), build_type, compiler, libtorch, cuda
/// (null without), implementations of the operator, license.
std::string version_json();

}  // namespace comba::cli
