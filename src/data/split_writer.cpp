#include "data/split_writer.h"

#include <vector>

namespace comba::data {

SplitWriter::SplitWriter(Split split, const std::filesystem::path& directory,
                         const std::filesystem::path& final_directory)
    : tokens_(directory / file_name(split, "tokens"), final_directory / file_name(split, "tokens")),
      documents_(directory / file_name(split, "documents"), final_directory / file_name(split, "documents")),
      paths_(directory / file_name(split, "paths"), final_directory / file_name(split, "paths")) {}

void SplitWriter::append(std::span<const unsigned char> text) {
  if (text.empty()) return;
  if (open_bytes_ == 0) {
    const auto bos = static_cast<Token>(Tokenizer().bos());
    tokens_.write(&bos, sizeof bos);
  }
  const std::vector<Token> tokens(text.begin(), text.end());
  tokens_.write(tokens.data(), tokens.size() * sizeof(Token));
  open_bytes_ += static_cast<std::int64_t>(text.size());
}

void SplitWriter::end_document(const std::string& path) {
  if (open_bytes_ == 0) return;
  const DocumentRecord record = {.first_token = static_cast<std::uint64_t>(counts_.num_tokens),
                                 .num_bytes = static_cast<std::uint64_t>(open_bytes_),
                                 .first_path_byte = static_cast<std::uint64_t>(counts_.path_bytes)};
  documents_.write(&record, sizeof record);
  paths_.write(path.c_str(), path.size() + 1);
  counts_.num_tokens += 1 + open_bytes_;
  counts_.num_documents += 1;
  counts_.num_bytes += open_bytes_;
  counts_.path_bytes += static_cast<std::int64_t>(path.size()) + 1;
  open_bytes_ = 0;
}

void SplitWriter::drop_document() {
  tokens_.truncate(static_cast<std::size_t>(counts_.num_tokens) * sizeof(Token));
  open_bytes_ = 0;
}

void SplitWriter::finish() {
  tokens_.finish();
  documents_.finish();
  paths_.finish();
}

}  // namespace comba::data
