#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace comba::data {

/// A child process that runs python/comba/data_helper.py, whose text is part of this library. Every failure is an Error
/// of code `io` with what the helper said. The process ends with this object.
class PythonHelper {
 public:
  /// Starts `python` (a path, or a name on the PATH) in a mode of the helper. `shown_as` names what is done in errors.
  PythonHelper(const std::string& python, const std::vector<std::string>& arguments, std::string shown_as);
  ~PythonHelper();
  PythonHelper(const PythonHelper&) = delete;
  PythonHelper& operator=(const PythonHelper&) = delete;

  /// A u32 size and as many bytes.
  void send(std::string_view message);
  /// The counterpart of send(). Nothing more may be sent when `is_last`.
  std::string receive(bool is_last = false);
  /// Fills `buffer`; less than all of it only at the end, which must then be a good one.
  std::size_t read(std::span<char> buffer);

 private:
  void write_all(const char* data, std::size_t size);
  /// Throws what the helper said, unless it ended well.
  void check_end();

  std::string python_, shown_as_;
  pid_t process_ = -1;
  int socket_ = -1;  // its stdin and stdout
  int errors_ = -1;  // its stderr: a file in memory
};

}  // namespace comba::data
