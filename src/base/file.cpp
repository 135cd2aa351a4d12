#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include "base/message.h"

namespace comba {
namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 18;

[[noreturn]] void fail(const char* where, const char* what, const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::io,
              concat('[', where, "] cannot ", what, " '", path.string(), "': ", std::system_category().message(error)));
}

int open_retrying(const std::filesystem::path& path, int flags) {
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

/// A device or a pipe has no content to replace, and its name must stay its own.
bool is_stream(const std::filesystem::path& path) {
  std::error_code missing;
  const std::filesystem::file_status status = std::filesystem::status(path, missing);
  return std::filesystem::is_character_file(status) || std::filesystem::is_fifo(status);
}

void write_to_stream(const std::filesystem::path& path, std::string_view content) {
  std::ofstream stream(path, std::ios::binary | std::ios::app);
  stream << content;
  stream.close();
  if (!stream) fail("write_file_atomically", "write", path, errno);
}

}  // namespace

FileReader::FileReader(const std::filesystem::path& path) : path_(path), descriptor_(open_retrying(path, O_RDONLY)) {
  if (descriptor_ < 0) fail("FileReader", "open", path_, errno);
}

FileReader::~FileReader() { ::close(descriptor_); }

std::size_t FileReader::read(std::span<std::byte> buffer) {
  ssize_t count;
  do {
    count = ::read(descriptor_, buffer.data(), buffer.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) fail("FileReader", "read", path_, errno);
  return static_cast<std::size_t>(count);
}

std::string read_file(const std::filesystem::path& path) {
  FileReader file(path);
  std::string content;
  std::size_t filled = 0;
  for (;;) {
    content.resize(filled + kBuffer);
    const std::size_t count = file.read(std::as_writable_bytes(std::span(content).subspan(filled)));
    filled += count;
    if (count == 0) break;
  }
  content.resize(filled);
  return content;
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int file = open_retrying(path, O_RDONLY);
  if (file < 0) fail("MappedFile", "open", path, errno);
  int error = 0;
  struct stat status;
  if (::fstat(file, &status) != 0) {
    error = errno;
  } else if (!S_ISREG(status.st_mode)) {
    error = S_ISDIR(status.st_mode) ? EISDIR : ENODEV;
  } else if (status.st_size > 0) {  // mmap refuses a length of 0
    size_ = static_cast<std::size_t>(status.st_size);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) {
      error = errno;
    } else {
      data_ = static_cast<const std::byte*>(address);
    }
  }
  ::close(file);  // a mapping outlives its descriptor
  if (error != 0) fail("MappedFile", "map", path, error);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileWriter::FileWriter(const std::filesystem::path& path, const std::filesystem::path& shown_as)
    : path_(path),
      shown_as_(shown_as.empty() ? path : shown_as),
      descriptor_(open_retrying(path, O_WRONLY | O_CREAT | O_EXCL)) {
  if (descriptor_ < 0) fail("FileWriter", "create", shown_as_, errno);
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(const void* data, std::size_t size) {
  buffer_.append(static_cast<const char*>(data), size);
  size_ += size;
  if (buffer_.size() >= kBuffer) flush();
}

void FileWriter::flush() {
  const char* next = buffer_.data();
  std::size_t left = buffer_.size();
  while (left > 0) {
    const ssize_t count = ::write(descriptor_, next, left);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("FileWriter", "write", shown_as_, errno);
    next += count;
    left -= static_cast<std::size_t>(count);
  }
  buffer_.clear();
}

void FileWriter::truncate(std::size_t size) {
  const std::size_t flushed = size_ - buffer_.size();
  if (size >= flushed) {
    buffer_.resize(size - flushed);
    size_ = size;
    return;
  }
  buffer_.clear();
  const auto offset = static_cast<off_t>(size);
  if (::ftruncate(descriptor_, offset) != 0 || ::lseek(descriptor_, offset, SEEK_SET) < 0) {
    fail("FileWriter", "truncate", shown_as_, errno);
  }
  size_ = size;
}

void FileWriter::finish() {
  flush();
  if (::fsync(descriptor_) != 0) fail("FileWriter", "write", shown_as_, errno);
  // close() may report a late error, and the descriptor is gone either way.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("FileWriter", "close", shown_as_, errno);
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), writer_(temporary_path_beside(path), path) {}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(writer_.path().c_str());
}

void AtomicFile::commit() {
  writer_.finish();
  if (::rename(writer_.path().c_str(), path_.c_str()) != 0) fail("AtomicFile", "replace", path_, errno);
  committed_ = true;
  sync_directory(path_.parent_path());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  if (is_stream(path)) return write_to_stream(path, content);
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory.empty() ? "." : directory;
  const int opened = open_retrying(path, O_RDONLY | O_DIRECTORY);
  if (opened < 0) fail("sync_directory", "open", path, errno);
  const int error = ::fsync(opened) == 0 ? 0 : errno;
  ::close(opened);
  // Some file systems have no such operation for directories and say EINVAL; there is then nothing to wait for.
  if (error != 0 && error != EINVAL) fail("sync_directory", "write", path, error);
}

std::filesystem::path temporary_path_beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter = 0;
  return path.parent_path() / concat('.', path.filename().string(), '.', ::getpid(), '-', counter++, ".partial");
}

}  // namespace comba
