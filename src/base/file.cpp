#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "comba/error.h"

namespace comba {
namespace {

constexpr std::size_t kWriteBuffer = std::size_t{1} << 18;
constexpr std::size_t kReadBuffer = std::size_t{1} << 18;

[[noreturn]] void fail(const char* where, const char* what, const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::io, std::string("[") + where + "] cannot " + what + " '" + path.string() +
                                 "': " + std::system_category().message(error));
}

/// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

int open_retrying(const std::filesystem::path& path, int flags) {
  int descriptor;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const Descriptor file(open_retrying(path, O_RDONLY));
  if (file.get() < 0) fail("read_file", "open", path, errno);
  std::string content;
  std::size_t filled = 0;
  for (;;) {
    content.resize(filled + kReadBuffer);
    const ssize_t count = ::read(file.get(), content.data() + filled, kReadBuffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("read_file", "read", path, errno);
    filled += static_cast<std::size_t>(count);
    if (count == 0) break;
  }
  content.resize(filled);
  return content;
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(open_retrying(path, O_RDONLY));
  if (file.get() < 0) fail("MappedFile", "open", path, errno);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) fail("MappedFile", "examine", path, errno);
  if (!S_ISREG(status.st_mode)) fail("MappedFile", "map", path, S_ISDIR(status.st_mode) ? EISDIR : ENODEV);
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses a length of 0
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) fail("MappedFile", "map", path, errno);
  data_ = static_cast<const std::byte*>(address);
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
  if (buffer_.size() >= kWriteBuffer) flush();
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
  flush();
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
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

void sync_directory(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory.empty() ? "." : directory;
  const Descriptor opened(open_retrying(path, O_RDONLY | O_DIRECTORY));
  if (opened.get() < 0) fail("sync_directory", "open", path, errno);
  // Some file systems have no such operation for directories and say EINVAL; there is then nothing to wait for.
  if (::fsync(opened.get()) != 0 && errno != EINVAL) fail("sync_directory", "write", path, errno);
}

std::filesystem::path temporary_path_beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter = 0;
  const std::string name =
      "." + path.filename().string() + "." + std::to_string(::getpid()) + "-" + std::to_string(counter++) + ".partial";
  return path.parent_path() / name;
}

}  // namespace comba
