#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

/// Files without surprises. Every failure is an Error of code `io` that names the path and the system's reason.
namespace comba {

/// Reads a file from its start to its end, piece by piece.
class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  /// Fills the start of `buffer` and returns the number of bytes; 0 at the end of the file.
  std::size_t read(std::span<std::byte> buffer);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// The whole content of a file.
std::string read_file(const std::filesystem::path& path);

/// A regular file mapped read-only into memory. Its size is fixed at construction; if somebody truncates the file
/// later, reading beyond its new end raises SIGBUS.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Writes a new file through a buffer.
class FileWriter {
 public:
  /// Creates `path`, which must not exist. Errors name `shown_as` when given: the final name of a temporary file.
  explicit FileWriter(const std::filesystem::path& path, const std::filesystem::path& shown_as = {});
  /// Closes without writing what is still buffered: call finish() to keep it.
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t size);
  /// Forgets everything from byte `size` on.
  void truncate(std::size_t size);
  /// Writes the buffer, forces the content to the disk and closes.
  void finish();

  /// Bytes written so far.
  std::size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();

  std::filesystem::path path_;
  std::filesystem::path shown_as_;
  std::string buffer_;
  std::size_t size_ = 0;
  int descriptor_ = -1;
};

/// A file that appears under its name whole or not at all: the content goes to a temporary file in the same directory,
/// which commit() forces to the disk and renames over `path`. Without commit() it leaves no trace.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t size) { writer_.write(data, size); }
  void commit();

 private:
  std::filesystem::path path_;
  FileWriter writer_;
  bool committed_ = false;
};

/// Replaces the content of `path` by means of AtomicFile; a device or pipe, such as /dev/stdout, is written to instead.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// Forces a directory's entries (creations, renames) to the disk.
void sync_directory(const std::filesystem::path& directory);

/// A name beside `path` that nobody else uses: hidden, and unique to this process and call.
std::filesystem::path temporary_path_beside(const std::filesystem::path& path);

}  // namespace comba
