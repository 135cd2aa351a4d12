#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace comba::data {

/// A file's name without what says how it is compressed (.gz, .zst).
std::string without_compression(const std::string& name);

/// Bytes from somewhere, from their start to their end. Errors are of code `io` and name the file.
class TextStream {
 public:
  virtual ~TextStream() = default;

  /// Fills `buffer`; less than all of it only at the end, then 0.
  virtual std::size_t read(std::span<char> buffer) = 0;
  /// Bytes taken from the file itself so far.
  virtual std::int64_t file_position() const = 0;
};

/// Opens a file; one whose name ends in .gz or .zst is decompressed on the way, all its members or frames. Memory does
/// not grow with the file: a zstd window of more than 128 MiB is refused.
std::unique_ptr<TextStream> open_text(const std::filesystem::path& path);

}  // namespace comba::data
