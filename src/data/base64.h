#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace comba::data {

/// Any bytes as text (RFC 4648, with padding).
std::string to_base64(std::string_view bytes);

/// The inverse; nothing when `text` is no such text.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace comba::data
