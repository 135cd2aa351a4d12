#include "data/text_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <vector>

#include "base/file.h"
#include "base/message.h"

namespace comba::data {
namespace {

constexpr std::size_t kCompressedPiece = std::size_t{1} << 17;

[[noreturn]] void fail(const std::filesystem::path& path, const char* rule, const std::string& reason) {
  throw Error(ErrorCode::io, concat("[pack] '", path.string(), "' must be ", rule, "; got ", reason));
}

class PlainStream : public TextStream {
 public:
  explicit PlainStream(const std::filesystem::path& path) : file_(path) {}

  std::size_t read(std::span<char> buffer) override {
    std::size_t filled = 0;
    while (filled < buffer.size()) {
      const std::size_t count = file_.read(std::as_writable_bytes(buffer.subspan(filled)));
      if (count == 0) break;
      filled += count;
    }
    position_ += static_cast<std::int64_t>(filled);
    return filled;
  }

  std::int64_t file_position() const override { return position_; }

 private:
  FileReader file_;
  std::int64_t position_ = 0;
};

/// Feeds a decompressor from a file.
class CompressedStream : public TextStream {
 public:
  explicit CompressedStream(const std::filesystem::path& path) : path_(path), file_(path), input_(kCompressedPiece) {}

  std::int64_t file_position() const override { return position_; }

 protected:
  /// The next piece of the file; empty at its end.
  std::span<char> next_input() {
    const std::size_t count = file_.read(std::as_writable_bytes(std::span(input_)));
    position_ += static_cast<std::int64_t>(count);
    return std::span(input_).first(count);
  }

  std::filesystem::path path_;

 private:
  FileReader file_;
  std::vector<char> input_;
  std::int64_t position_ = 0;
};

class GzipStream : public CompressedStream {
 public:
  explicit GzipStream(const std::filesystem::path& path) : CompressedStream(path) {
    constexpr int kGzipOnly = 15 + 16;
    require(::inflateInit2(&stream_, kGzipOnly) == Z_OK, ErrorCode::internal, "[pack] zlib does not start");
  }
  ~GzipStream() override { ::inflateEnd(&stream_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  std::size_t read(std::span<char> buffer) override {
    stream_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream_.avail_out = static_cast<uInt>(buffer.size());
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) {
        const auto input = next_input();
        if (input.empty()) {
          if (inside_member_) fail(path_, "whole gzip data", "an early end");
          break;
        }
        stream_.next_in = reinterpret_cast<Bytef*>(input.data());
        stream_.avail_in = static_cast<uInt>(input.size());
      }
      inside_member_ = true;
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        inside_member_ = false;
        ::inflateReset(&stream_);  // another member may follow
      } else if (status != Z_OK) {
        fail(path_, "gzip data, as its name says", stream_.msg != nullptr ? stream_.msg : "damaged data");
      }
    }
    return buffer.size() - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool inside_member_ = false;
};

class ZstdStream : public CompressedStream {
 public:
  explicit ZstdStream(const std::filesystem::path& path) : CompressedStream(path), stream_(::ZSTD_createDStream()) {
    require(stream_ != nullptr, ErrorCode::internal, "[pack] zstd does not start");
  }
  ~ZstdStream() override { ::ZSTD_freeDStream(stream_); }
  ZstdStream(const ZstdStream&) = delete;
  ZstdStream& operator=(const ZstdStream&) = delete;

  std::size_t read(std::span<char> buffer) override {
    ZSTD_outBuffer output = {buffer.data(), buffer.size(), 0};
    while (output.pos < output.size) {
      // What is decompressed but did not fit into the last buffer comes without new input.
      if (input_.pos == input_.size && !more_output_) {
        const auto input = next_input();
        if (input.empty()) {
          if (inside_frame_) fail(path_, "whole zstd data", "an early end");
          break;
        }
        input_ = {input.data(), input.size(), 0};
      }
      const std::size_t status = ::ZSTD_decompressStream(stream_, &output, &input_);
      if (::ZSTD_isError(status) != 0) fail(path_, "zstd data, as its name says", ::ZSTD_getErrorName(status));
      inside_frame_ = status != 0;
      more_output_ = inside_frame_ && output.pos == output.size;
    }
    return output.pos;
  }

 private:
  ZSTD_DStream* stream_;
  ZSTD_inBuffer input_ = {nullptr, 0, 0};
  bool inside_frame_ = false;
  bool more_output_ = false;
};

}  // namespace

std::string without_compression(const std::string& name) {
  for (const char* ending : {".gz", ".zst"}) {
    if (name.ends_with(ending)) return name.substr(0, name.rfind('.'));
  }
  return name;
}

std::unique_ptr<TextStream> open_text(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (name.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace comba::data
