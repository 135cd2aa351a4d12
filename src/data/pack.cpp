#include "data/pack.h"

#include <cstring>
#include <deque>
#include <system_error>
#include <unordered_set>
#include <vector>

#include "base/atomic_directory.h"
#include "base/file.h"
#include "base/message.h"
#include "comba/parallel.h"
#include "data/md5.h"
#include "data/split_writer.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kBatchBytesPerThread = std::int64_t{1} << 22;

/// Only a data set may be replaced: a slip of the pen must not cost somebody a directory.
void check_output(const fs::path& output, bool overwrite) {
  std::error_code absent;
  if (!fs::exists(output, absent) || fs::is_empty(output, absent)) return;
  require(overwrite, ErrorCode::invalid_argument, "[pack] the output must not exist unless overwrite is set; got '",
          output.string(), "'");
  require(is_data_set(output), ErrorCode::invalid_argument, "[pack] only a data set is overwritten; got '",
          output.string(), "'");
}

void check_options(const PackOptions& options, const SourceFiles& sources) {
  require(options.shard_tokens >= 1, ErrorCode::invalid_argument, "[pack] shard_tokens must be at least 1; got ",
          options.shard_tokens);
  if (options.holdout != Holdout::tail) return;
  require(options.records.prompt.empty(), ErrorCode::invalid_argument,
          "[pack] a tail of a record has no prompt: hold out whole documents; got the prompt field \"",
          options.records.prompt, "\"");
  for (const SourceFile& file : sources.files) {
    const bool size_is_known =
        holds_records(file.relative_path) || without_compression(file.relative_path) == file.relative_path;
    require(size_is_known, ErrorCode::invalid_argument,
            "[pack] the tail of a compressed text is not known in advance: unpack it, or hold out whole files; got '",
            file.path.string(), "'");
  }
}

struct DigestHash {
  std::size_t operator()(const Md5::Digest& digest) const {
    std::size_t hash;  // any part of a digest is as good as the whole
    std::memcpy(&hash, digest.data(), sizeof hash);
    return hash;
  }
};

/// Turns files into documents of the two splits, in a directory that is not yet the data set.
class Packer {
 public:
  Packer(const PackOptions& options, const SourceFiles& sources, const fs::path& directory)
      : options_(options),
        files_(sources.files),
        directory_(directory),
        reader_(files_, {.include_binary = options.include_binary,
                         .cut_at_words = !options.tokenizer.is_bytes(),
                         .records = options.records,
                         .python = options.python}),
        encoder_(options.tokenizer, options.records, options.holdout) {
    report_.index.tokenizer = options.tokenizer;
    report_.index.shard_tokens = options.shard_tokens;
    report_.index.has_loss_mask = !options.records.prompt.empty();
    report_.num_symbolic_links = sources.num_symbolic_links;
    report_.num_special_files = sources.num_special_files;
    for (const Split split : kSplits) writers_.emplace_back(split, directory, options.output, report_.index);
    if (!options.tokenizer.is_bytes()) {
      const std::string tokenizer = options.tokenizer.to_json();
      sources_.update(tokenizer.data(), tokenizer.size());
    }
    progress_.total_files = static_cast<std::int64_t>(files_.size());
    for (const SourceFile& file : files_) progress_.total_bytes += file.num_bytes;
  }

  PackReport run() {
    while (read_batch()) {
      parallel_for(num_pieces_, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) encode(batch_[static_cast<std::size_t>(i)]);
      });
      for (std::int64_t i = 0; i < num_pieces_; ++i) write(batch_[static_cast<std::size_t>(i)]);
    }
    std::int64_t num_documents = 0;
    for (const SplitWriter& writer : writers_) num_documents += writer.counts().num_documents;
    require(num_documents > 0, ErrorCode::invalid_argument, "[pack] the inputs must hold text; got ",
            progress_.total_files, " files, of them ", report_.num_empty, " empty and ", report_.num_binary, " binary");
    finish();
    return std::move(report_);
  }

 private:
  /// Reads the next pieces, enough to keep all threads busy; false when there are none.
  bool read_batch() {
    const std::int64_t wanted = kBatchBytesPerThread * num_threads();
    num_pieces_ = 0;
    for (std::int64_t bytes = 0; bytes < wanted; ++num_pieces_) {
      require(options_.stop == nullptr || !options_.stop->requested(), ErrorCode::interrupted, "[pack] interrupted");
      if (num_pieces_ == static_cast<std::int64_t>(batch_.size())) batch_.emplace_back();
      EncodedPiece& next = batch_[static_cast<std::size_t>(num_pieces_)];
      Piece& piece = next.piece;
      if (!reader_.next(piece)) break;
      next.first_byte = read_bytes_;
      next.document_bytes = files_[static_cast<std::size_t>(piece.file)].num_bytes;
      read_bytes_ = piece.ends_document ? 0 : read_bytes_ + static_cast<std::int64_t>(piece.text.size());
      constexpr std::int64_t kPieceCost = 500;  // what an empty record still takes
      bytes += static_cast<std::int64_t>(piece.text.size()) + kPieceCost;
      progress_.num_bytes = reader_.position();
      if (piece.ends_file) ++progress_.num_files;
      if (options_.on_progress) options_.on_progress(progress_);
    }
    return num_pieces_ > 0;
  }

  /// What goes wrong is told when the piece would be written: then the first error is always the same one.
  void encode(EncodedPiece& encoded) const {
    encoded.failure = nullptr;
    try {
      encoder_.encode(encoded);
    } catch (...) {
      encoded.failure = std::current_exception();
    }
  }

  void write(const EncodedPiece& encoded) {
    if (encoded.failure) std::rethrow_exception(encoded.failure);
    const Piece& piece = encoded.piece;
    if (piece.kind == Piece::Kind::end_of_records) return;
    if (piece.kind == Piece::Kind::skipped) {
      ++report_.num_binary;
      return;
    }
    for (const Split split : kSplits) {
      const EncodedPart& part = encoded.parts[static_cast<int>(split)];
      writers_[static_cast<std::size_t>(split)].append(part.ids, part.num_context, part.num_bytes);
      num_tokens_ += static_cast<std::int64_t>(part.ids.size());
    }
    if (piece.kind == Piece::Kind::text) hash_.update(piece.text.data(), piece.text.size());
    if (!piece.ends_document) return;
    const Md5::Digest content = piece.kind == Piece::Kind::text ? hash_.finish() : encoded.digest;
    keep_or_drop(piece.path, content);
    hash_ = Md5();
    num_tokens_ = 0;
  }

  void keep_or_drop(const std::string& path, const Md5::Digest& content) {
    if (num_tokens_ == 0) {
      ++report_.num_empty;
    } else if (!options_.keep_duplicates && !seen_.insert(content).second) {
      // Known only now, because one reading both hashes and packs: what is written is what was compared.
      ++report_.num_duplicates;
      for (SplitWriter& writer : writers_) writer.drop_document();
      return;
    } else {
      sources_.update(path.c_str(), path.size() + 1);
      sources_.update(content.data(), content.size());
    }
    for (SplitWriter& writer : writers_) writer.end_document(path);
  }

  void finish() {
    for (SplitWriter& writer : writers_) writer.finish();
    report_.index.source_md5 = to_hex(sources_.finish());
    for (const Split split : kSplits) report_.index[split] = writers_[static_cast<std::size_t>(split)].counts();
    const std::string text = to_json(report_.index);
    FileWriter index(directory_ / kIndexFile, options_.output / kIndexFile);
    index.write(text.data(), text.size());
    index.finish();
  }

  const PackOptions& options_;
  const std::vector<SourceFile>& files_;
  const fs::path& directory_;
  DocumentReader reader_;
  PieceEncoder encoder_;
  std::deque<SplitWriter> writers_;  // by Split
  std::vector<EncodedPiece> batch_;  // the first num_pieces_; the others keep their memory for later
  std::int64_t num_pieces_ = 0;
  std::int64_t read_bytes_ = 0;  // of the document being read
  std::int64_t num_tokens_ = 0;  // of the document being written
  Md5 hash_;                     // of the document being written
  std::unordered_set<Md5::Digest, DigestHash> seen_;
  Md5 sources_;
  PackProgress progress_;
  PackReport report_;
};

}  // namespace

PackReport pack(const PackOptions& options) {
  check_output(options.output, options.overwrite);
  const SourceFiles sources = list_source_files(options.inputs, options.selection, options.output);
  check_options(options, sources);
  AtomicDirectory output(options.output);
  PackReport report = Packer(options, sources, output.staging()).run();
  output.commit();
  return report;
}

}  // namespace comba::data
