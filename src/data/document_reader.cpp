#include "data/document_reader.h"

#include <algorithm>
#include <string_view>

#include "base/message.h"
#include "data/python_helper.h"

namespace comba::data {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 18;
constexpr std::size_t kMostLineBytes = std::size_t{1} << 28;
constexpr std::size_t kBinaryWindow = 8000;  // as git looks at files

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

bool is_parquet(const std::string& name) { return name.ends_with(".parquet"); }

/// The rows of a parquet file as lines of JSON.
class ParquetStream : public TextStream {
 public:
  ParquetStream(const SourceFile& file, const ReadOptions& options)
      : helper_(options.python, arguments(file, options.records), concat("pack ", file.path.string())) {}

  std::size_t read(std::span<char> buffer) override { return helper_.read(buffer); }
  std::int64_t file_position() const override { return 0; }  // known at the end only

 private:
  static std::vector<std::string> arguments(const SourceFile& file, const RecordFields& fields) {
    std::vector<std::string> all = {"parquet", file.path.string(), fields.text};
    if (!fields.prompt.empty()) all.push_back(fields.prompt);
    return all;
  }

  PythonHelper helper_;
};

}  // namespace

bool holds_records(const std::string& name) {
  const std::string plain = without_compression(name);
  return plain.ends_with(".jsonl") || plain.ends_with(".ndjson") || is_parquet(name);
}

std::int64_t DocumentReader::position() const { return finished_bytes_ + (stream_ ? stream_->file_position() : 0); }

void DocumentReader::open_next() {
  const SourceFile& file = files_[next_file_++];
  if (is_parquet(file.relative_path)) {
    stream_ = std::make_unique<ParquetStream>(file, options_);
  } else {
    stream_ = open_text(file.path);
  }
  has_records_ = holds_records(file.relative_path);
  is_start_ = true;
  at_end_ = false;
  buffer_.clear();
  taken_ = 0;
  line_ = 0;
}

/// Reads until `size` bytes are there to be taken, or the file ends.
void DocumentReader::fill(std::size_t size) {
  if (at_end_ || buffer_.size() - taken_ >= size) return;
  buffer_.erase(0, taken_);
  taken_ = 0;
  const std::size_t present = buffer_.size();
  buffer_.resize(size);
  const std::size_t count = stream_->read(std::span(buffer_).subspan(present));
  buffer_.resize(present + count);
  at_end_ = count < size - present;
}

bool DocumentReader::next(Piece& piece) {
  if (!stream_) {
    if (next_file_ == files_.size()) return false;
    open_next();
  }
  piece.kind = Piece::Kind::text;
  piece.file = static_cast<std::int64_t>(next_file_) - 1;
  piece.path = files_[next_file_ - 1].relative_path;
  piece.text.clear();
  has_records_ ? next_record(piece) : next_text(piece);
  if (piece.ends_file) {
    // A file that is left in the middle counts as read.
    finished_bytes_ += std::max(stream_->file_position(), files_[next_file_ - 1].num_bytes);
    stream_.reset();
  }
  return true;
}

void DocumentReader::next_text(Piece& piece) {
  fill(kPieceBytes + 1);  // one more, to know whether it is the last
  const std::string_view window = std::string_view(buffer_).substr(taken_, kBinaryWindow);
  if (is_start_ && !options_.include_binary && window.find('\0') != std::string_view::npos) {
    piece.kind = Piece::Kind::skipped;
    piece.ends_document = piece.ends_file = true;
    return;
  }
  is_start_ = false;
  const std::size_t size = end_of_piece();
  piece.text.assign(buffer_, taken_, size);
  taken_ += size;
  piece.ends_document = piece.ends_file = at_end_ && taken_ == buffer_.size();
}

std::size_t DocumentReader::end_of_piece() const {
  const std::size_t there = buffer_.size() - taken_;
  if (there <= kPieceBytes || !options_.cut_at_words) return std::min(there, kPieceBytes);
  const char* text = buffer_.data() + taken_;
  for (std::size_t i = kPieceBytes; i > kPieceBytes / 2; --i) {
    if (is_space(text[i]) && !is_space(text[i - 1])) return i;
  }
  std::size_t end = kPieceBytes;  // no words: then where a character begins
  while (end > kPieceBytes - 4 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

void DocumentReader::next_record(Piece& piece) {
  std::size_t searched = 0;
  for (;;) {
    const std::size_t newline = buffer_.find('\n', taken_ + searched);
    const std::size_t there = buffer_.size() - taken_;
    if (newline == std::string::npos && !at_end_) {
      searched = there;
      require(there < kMostLineBytes, ErrorCode::io, "[pack] '", files_[next_file_ - 1].path.string(), "', line ",
              line_ + 1, ", must have at most ", kMostLineBytes, " bytes; got more");
      fill(std::max(kPieceBytes, 2 * there));
      continue;
    }
    const bool is_last = newline == std::string::npos;
    if (is_last && there == 0) {
      piece.kind = Piece::Kind::end_of_records;
      piece.ends_document = piece.ends_file = true;
      return;
    }
    const std::size_t size = is_last ? there : newline - taken_;
    const auto line = std::string_view(buffer_).substr(taken_, size);
    taken_ += size + (is_last ? 0 : 1);
    searched = 0;
    ++line_;
    if (std::all_of(line.begin(), line.end(), is_space)) continue;
    piece.kind = Piece::Kind::record;
    piece.path += concat(':', line_);
    piece.text = line;
    piece.ends_document = true;
    piece.ends_file = false;
    return;
  }
}

}  // namespace comba::data
