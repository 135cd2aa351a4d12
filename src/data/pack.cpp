#include "data/pack.h"

#include <algorithm>
#include <limits>
#include <set>
#include <system_error>
#include <vector>

#include "base/atomic_directory.h"
#include "base/file.h"
#include "base/message.h"
#include "data/md5.h"
#include "data/split_writer.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kHoldoutPeriod = 20;
constexpr std::size_t kPieceBytes = std::size_t{1} << 18;
constexpr std::size_t kBinaryWindow = 8000;  // as git looks at files

bool looks_binary(std::span<const unsigned char> start) {
  const auto window = start.first(std::min(start.size(), kBinaryWindow));
  return std::find(window.begin(), window.end(), 0) != window.end();
}

/// Only a data set may be replaced: a slip of the pen must not cost somebody a directory.
void check_output(const fs::path& output, bool overwrite) {
  std::error_code absent;
  if (!fs::exists(output, absent) || fs::is_empty(output, absent)) return;
  require(overwrite, ErrorCode::invalid_argument, "[pack] the output must not exist unless overwrite is set; got '",
          output.string(), "'");
  require(fs::exists(output / kIndexFile, absent), ErrorCode::invalid_argument,
          "[pack] only a data set is overwritten; got '", output.string(), "'");
  read_index(output);
}

/// Turns files into documents of the two splits, in a directory that is not yet the data set.
class Packer {
 public:
  Packer(const PackOptions& options, const fs::path& directory)
      : options_(options),
        directory_(directory),
        train_(Split::train, directory, options.output),
        heldout_(Split::heldout, directory, options.output) {}

  PackReport run(const SourceFiles& sources) {
    report_.num_symbolic_links = sources.num_symbolic_links;
    report_.num_special_files = sources.num_special_files;
    progress_.total_files = static_cast<std::int64_t>(sources.files.size());
    for (const SourceFile& file : sources.files) progress_.total_bytes += file.num_bytes;
    for (const SourceFile& file : sources.files) {
      pack_file(file);
      ++progress_.num_files;
      report_progress();
    }
    const std::int64_t num_documents = train_.counts().num_documents + heldout_.counts().num_documents;
    require(num_documents > 0, ErrorCode::invalid_argument, "[pack] the inputs must hold text; got ",
            progress_.total_files, " files, of them ", report_.num_empty, " empty and ", report_.num_binary, " binary");
    finish();
    return std::move(report_);
  }

 private:
  void pack_file(const SourceFile& file) {
    FileReader reader(file.path);
    Md5 hash;
    std::int64_t position = 0;
    const std::int64_t train_bytes = num_train_bytes(file);
    for (;;) {
      require(options_.stop == nullptr || !options_.stop->requested(), ErrorCode::interrupted, "[pack] interrupted");
      const auto piece = std::span(buffer_).first(reader.read(std::as_writable_bytes(std::span(buffer_))));
      if (piece.empty()) break;
      if (position == 0 && !options_.include_binary && looks_binary(piece)) {
        ++report_.num_binary;
        progress_.num_bytes += file.num_bytes;
        return;
      }
      const auto piece_bytes = static_cast<std::int64_t>(piece.size());
      const auto for_train = static_cast<std::size_t>(std::clamp<std::int64_t>(train_bytes - position, 0, piece_bytes));
      train_.append(piece.first(for_train));
      heldout_.append(piece.subspan(for_train));
      hash.update(piece.data(), piece.size());
      position += piece_bytes;
      progress_.num_bytes += piece_bytes;
      report_progress();
    }
    keep_or_drop(file, position, hash.finish());
  }

  /// How much of a file's start goes to the train split. The size seen while listing decides: a file that grew since
  /// then stays within the memory and the split foreseen.
  std::int64_t num_train_bytes(const SourceFile& file) const {
    if (options_.holdout == Holdout::tail) return file.num_bytes - file.num_bytes / kHoldoutPeriod;
    return is_held_out(file.relative_path) ? 0 : std::numeric_limits<std::int64_t>::max();
  }

  void keep_or_drop(const SourceFile& file, std::int64_t num_bytes, const Md5::Digest& content) {
    if (num_bytes == 0) {
      ++report_.num_empty;
    } else if (!seen_.insert(content).second) {
      // Known only now, because one reading both hashes and packs: what is written is what was compared.
      ++report_.num_duplicates;
      train_.drop_document();
      heldout_.drop_document();
    } else {
      train_.end_document(file.relative_path);
      heldout_.end_document(file.relative_path);
      sources_.update(file.relative_path.c_str(), file.relative_path.size() + 1);
      sources_.update(content.data(), content.size());
    }
  }

  void finish() {
    train_.finish();
    heldout_.finish();
    report_.index.source_md5 = to_hex(sources_.finish());
    report_.index[Split::train] = train_.counts();
    report_.index[Split::heldout] = heldout_.counts();
    const std::string text = to_json(report_.index);
    FileWriter index(directory_ / kIndexFile, options_.output / kIndexFile);
    index.write(text.data(), text.size());
    index.finish();
  }

  void report_progress() const {
    if (options_.on_progress) options_.on_progress(progress_);
  }

  const PackOptions& options_;
  const fs::path& directory_;
  SplitWriter train_;
  SplitWriter heldout_;
  std::vector<unsigned char> buffer_ = std::vector<unsigned char>(kPieceBytes);
  std::set<Md5::Digest> seen_;
  Md5 sources_;
  PackProgress progress_;
  PackReport report_;
};

}  // namespace

bool is_held_out(const std::string& relative_path) {
  std::int64_t remainder = 0;
  for (const std::uint8_t byte : md5(relative_path)) remainder = (remainder * 256 + byte) % kHoldoutPeriod;
  return remainder == 0;
}

PackReport pack(const PackOptions& options) {
  check_output(options.output, options.overwrite);
  const SourceFiles sources = list_source_files(options.inputs, options.selection, options.output);
  AtomicDirectory output(options.output);
  PackReport report = Packer(options, output.staging()).run(sources);
  output.commit();
  return report;
}

}  // namespace comba::data
