#pragma once

#include <cstdint>
#include <string>

/// Numbers as people read them.
namespace comba::cli {

/// "1,234,567".
std::string format_count(std::int64_t count);

/// "1 file", "1,234 files".
std::string format_counted(std::int64_t count, const char* noun);

/// "17 B", "8.1 MB": decimal units.
std::string format_bytes(std::int64_t bytes);

/// "8.4 s", "4 min 05 s", "2 h 03 min".
std::string format_duration(double seconds);

}  // namespace comba::cli
