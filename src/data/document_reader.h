#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/source_files.h"
#include "data/text_stream.h"

namespace comba::data {

/// How documents are found in files whose lines or rows are records (.jsonl, .ndjson, .parquet).
struct RecordFields {
  std::string text = "text";  ///< the document
  std::string prompt;         ///< empty: none. Text that comes before it, to be read but not learned
};

/// Whether a file of this name holds records.
bool holds_records(const std::string& name);

/// The next part of the text of a file: a piece of a document, or a record that holds a whole one.
struct Piece {
  enum class Kind : std::uint8_t {
    text,            ///< `text` belongs to a file that is one document
    record,          ///< `text` is a line of JSON, not yet looked at
    end_of_records,  ///< a file of records has ended
    skipped,         ///< the file is no text; this is its only piece
  };
  Kind kind = Kind::text;
  std::int64_t file = 0;  ///< index in the list of files
  std::string path;       ///< of the document: that of its file, and for a record ":" and the number of its line
  std::string text;
  bool ends_document = false;  ///< nothing of this document follows
  bool ends_file = false;
};

/// How a reader is to cut files.
struct ReadOptions {
  bool include_binary = false;     ///< also files with a NUL byte in their first 8000 bytes
  bool cut_at_words = false;       ///< cut a long text where a word begins, for tokenizers that look at words
  RecordFields records{};          ///< the columns read from parquet files
  std::string python = "python3";  ///< reads parquet files
};

/// Reads files one after another, in pieces of bounded size. Where it cuts depends on the text alone.
class DocumentReader {
 public:
  DocumentReader(const std::vector<SourceFile>& files, const ReadOptions& options) : files_(files), options_(options) {}

  /// The next piece; false when there is no more. Throws Error (io) naming the file, and the line where there is one.
  bool next(Piece& piece);

  /// Bytes of the files read so far.
  std::int64_t position() const;

 private:
  void open_next();
  void fill(std::size_t size);
  void next_text(Piece& piece);
  void next_record(Piece& piece);
  std::size_t end_of_piece() const;

  const std::vector<SourceFile>& files_;
  ReadOptions options_;
  std::size_t next_file_ = 0;
  std::unique_ptr<TextStream> stream_;  // of files_[next_file_ - 1]; none between files
  bool has_records_ = false;
  bool is_start_ = false;  // nothing of this file has been returned
  bool at_end_ = false;    // the stream has no more
  std::string buffer_;     // read, not yet returned, from byte taken_ on
  std::size_t taken_ = 0;
  std::int64_t line_ = 0;
  std::int64_t finished_bytes_ = 0;
};

}  // namespace comba::data
