#pragma once

#include <string>

namespace comba::cli {

/// Version, commit, compiler and what was compiled in, one fact a line; for people, the first line alone says most.
std::string version_text();

/// "comba 0.1.0", and the commit it was built from ("unknown" outside a git tree).
std::string program_version();
std::string program_commit();

/// The same as one JSON object: version, commit ("unknown" outside a git tree), build_type, compiler, libtorch, cuda
/// (null without), implementations of the operator, license.
std::string version_json();

}  // namespace comba::cli
