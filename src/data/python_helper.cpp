#include "data/python_helper.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/environment.h"
#include "base/message.h"
#include "data/python_helper_source.h"

namespace comba::data {
namespace {

constexpr std::uint32_t kMostMessageBytes = std::uint32_t{1} << 30;

std::string last_line(int file) {
  std::string text(4096, '\0');
  const off_t size = ::lseek(file, 0, SEEK_END);
  const off_t from = std::max<off_t>(0, size - static_cast<off_t>(text.size()));
  const ssize_t count = ::pread(file, text.data(), text.size(), from);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

PythonHelper::PythonHelper(const std::string& python, const std::vector<std::string>& arguments, std::string shown_as)
    : python_(python), shown_as_(std::move(shown_as)) {
  int ends[2];
  errors_ = ::memfd_create("errors", MFD_CLOEXEC);
  const bool opened = errors_ >= 0 && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0;
  require(opened, ErrorCode::io, "[", shown_as_, "] cannot start ", python_, ": ",
          std::system_category().message(errno));
  std::vector<const char*> command = {python_.c_str(), "-c", kPythonHelperSource};
  for (const std::string& argument : arguments) command.push_back(argument.c_str());
  command.push_back(nullptr);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, ends[1], 0);
  ::posix_spawn_file_actions_adddup2(&files, ends[1], 1);
  ::posix_spawn_file_actions_adddup2(&files, errors_, 2);
  // Ctrl-C is for the program, which then ends this process.
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGINT);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &blocked);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error = ::posix_spawnp(&process_, command[0], &files, &attributes, const_cast<char* const*>(command.data()),
                                   child_environment());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  ::close(ends[1]);
  socket_ = ends[0];
  if (error == 0) return;
  // No destructor runs for an object that was never made.
  ::close(socket_);
  ::close(errors_);
  throw Error(ErrorCode::io, concat("[", shown_as_, "] needs Python; got no program '", python_,
                                    "' (name one with --python): ", std::system_category().message(error)));
}

PythonHelper::~PythonHelper() {
  if (socket_ >= 0) ::close(socket_);
  if (errors_ >= 0) ::close(errors_);
  if (process_ <= 0) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
}

void PythonHelper::write_all(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t count = ::send(socket_, data, size, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      check_end();
      throw Error(ErrorCode::io, concat("[", shown_as_, "] ", python_, " does not listen"));
    }
    data += count;
    size -= static_cast<std::size_t>(count);
  }
}

void PythonHelper::send(std::string_view message) {
  require(message.size() <= kMostMessageBytes, ErrorCode::io, "[", shown_as_, "] a text must have at most ",
          kMostMessageBytes, " bytes; got ", message.size());
  const auto size = static_cast<std::uint32_t>(message.size());
  write_all(reinterpret_cast<const char*>(&size), sizeof size);
  write_all(message.data(), message.size());
}

std::size_t PythonHelper::read(std::span<char> buffer) {
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t count = ::recv(socket_, buffer.data() + filled, buffer.size() - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      check_end();
      break;
    }
    filled += static_cast<std::size_t>(count);
  }
  return filled;
}

std::string PythonHelper::receive(bool is_last) {
  if (is_last) ::shutdown(socket_, SHUT_WR);
  std::uint32_t size = 0;
  std::string message;
  bool whole = read({reinterpret_cast<char*>(&size), sizeof size}) == sizeof size && size <= kMostMessageBytes;
  if (whole) {
    message.resize(size);
    whole = read(message) == size;
  }
  require(whole, ErrorCode::io, "[", shown_as_, "] ", python_, " ended early");
  return message;
}

void PythonHelper::check_end() {
  if (process_ <= 0) return;
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  const std::string said = last_line(errors_);
  throw Error(ErrorCode::io, concat("[", shown_as_, "] ", python_, ": ", said.empty() ? "ended without a word" : said));
}

}  // namespace comba::data
