#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

namespace comba::cli {
namespace {

/// What fits on one line of the terminal: a longer text would wrap, and its start could not be drawn over.
std::size_t terminal_columns(std::FILE* stream) {
  struct winsize size = {};
  const bool known = ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - 1u : 79u;
}

}  // namespace

ProgressLine::ProgressLine(std::FILE* stream) : stream_(stream), terminal_(::isatty(::fileno(stream)) == 1) {}

ProgressLine::~ProgressLine() {
  if (line_open_) std::fputc('\n', stream_);
}

void ProgressLine::update(const std::string& text) {
  const Clock::duration pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10);
  if (Clock::now() - last_ >= pause) draw(text);
}

void ProgressLine::finish(const std::string& text) {
  draw(text);
  if (line_open_) std::fputc('\n', stream_);
  line_open_ = false;
}

void ProgressLine::note(const std::string& text) {
  std::fprintf(stream_, "%s%s\n", line_open_ ? "\r\x1b[K" : "", text.c_str());
  std::fflush(stream_);
  line_open_ = false;
}

void ProgressLine::draw(const std::string& text) {
  if (terminal_) {
    std::fprintf(stream_, "\r%s\x1b[K", text.substr(0, terminal_columns(stream_)).c_str());
  } else {
    std::fprintf(stream_, "%s\n", text.c_str());
  }
  std::fflush(stream_);
  line_open_ = terminal_;
  last_ = Clock::now();
}

}  // namespace comba::cli
