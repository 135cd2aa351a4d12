#pragma once

#include <string>
#include <string_view>

namespace comba::cli {

/// Makes text of bytes that arrive one by one: holds back a character until it is whole, and puts U+FFFD in place of
/// bytes that are no UTF-8, so that a terminal never sees half a character.
class Utf8Stream {
 public:
  /// What can be printed once `bytes` have arrived.
  std::string feed(std::string_view bytes);
  /// What is to be printed at the end of the text.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace comba::cli
