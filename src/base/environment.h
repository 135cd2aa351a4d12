#pragma once

#include <optional>
#include <string>

/// The only place that reads the process environment.
namespace comba {

/// Value of COMBA_IMPL, the implementation every operator is told to use; empty when unset. Read at each call.
std::string forced_implementation();

/// Value of any variable, or none when it is unset: for what a launcher says.
std::optional<std::string> environment_variable(const std::string& name);

/// The whole environment in the system's form, for child processes that are to have the same.
char** child_environment();

}  // namespace comba
