#include "data/split_writer.h"

#include <algorithm>
#include <string>

namespace comba::data {

ShardWriter::ShardWriter(Split split, const char* part, const std::filesystem::path& directory,
                         const std::filesystem::path& final_directory, std::int64_t shard_bytes)
    : split_(split), part_(part), directory_(directory), final_directory_(final_directory), shard_bytes_(shard_bytes) {
  open_next();
}

void ShardWriter::open_next() {
  const std::string name = shard_name(split_, next_shard_++, part_);
  open_.push_back(std::make_unique<FileWriter>(directory_ / name, final_directory_ / name));
}

void ShardWriter::write(const void* data, std::int64_t size) {
  const auto* next = static_cast<const char*>(data);
  while (size > 0) {
    std::int64_t room = shard_bytes_ - static_cast<std::int64_t>(open_.back()->size());
    if (room == 0) {
      open_next();
      room = shard_bytes_;
    }
    const std::int64_t count = std::min(room, size);
    open_.back()->write(next, static_cast<std::size_t>(count));
    next += count;
    size -= count;
  }
}

void ShardWriter::keep() {
  for (std::size_t i = 0; i + 1 < open_.size(); ++i) open_[i]->finish();
  open_.erase(open_.begin(), open_.end() - 1);
  kept_ = static_cast<std::int64_t>(open_.front()->size());
}

void ShardWriter::drop() {
  while (open_.size() > 1) {
    const std::filesystem::path path = open_.back()->path();
    open_.pop_back();
    std::filesystem::remove(path);
    --next_shard_;
  }
  open_.front()->truncate(static_cast<std::size_t>(kept_));
}

void ShardWriter::finish() {
  for (const auto& file : open_) file->finish();
}

SplitWriter::SplitWriter(Split split, const std::filesystem::path& directory,
                         const std::filesystem::path& final_directory, const DatasetIndex& index)
    : bos_(static_cast<std::uint32_t>(index.tokenizer.bos())),
      token_bytes_(token_bytes_of(index.tokenizer)),
      tokens_(split, "tokens", directory, final_directory, index.shard_tokens * token_bytes_),
      documents_(directory / file_name(split, "documents"), final_directory / file_name(split, "documents")),
      paths_(directory / file_name(split, "paths"), final_directory / file_name(split, "paths")) {
  if (!index.has_loss_mask) return;
  loss_ = std::make_unique<ShardWriter>(split, "loss", directory, final_directory, index.shard_tokens);
}

void SplitWriter::append(std::span<const std::uint32_t> ids, std::size_t num_context, std::int64_t num_bytes) {
  open_bytes_ += num_bytes;
  if (ids.empty()) return;
  if (open_tokens_ == 0) {
    write_ids({&bos_, 1});
    write_loss(1, 1);  // the end of the document before it is learned
  }
  write_ids(ids);
  write_loss(num_context, 0);
  write_loss(ids.size() - num_context, 1);
}

void SplitWriter::write_ids(std::span<const std::uint32_t> ids) {
  if (token_bytes_ == 2) {
    narrow_.resize(ids.size());
    std::transform(ids.begin(), ids.end(), narrow_.begin(),
                   [](std::uint32_t id) { return static_cast<std::uint16_t>(id); });
    tokens_.write(narrow_.data(), static_cast<std::int64_t>(narrow_.size()) * token_bytes_);
  } else {
    tokens_.write(ids.data(), static_cast<std::int64_t>(ids.size()) * token_bytes_);
  }
  open_tokens_ += static_cast<std::int64_t>(ids.size());
}

void SplitWriter::write_loss(std::size_t count, char learned) {
  if (loss_ == nullptr) return;
  const std::string marks(count, learned);
  loss_->write(marks.data(), static_cast<std::int64_t>(marks.size()));
}

void SplitWriter::end_document(const std::string& path) {
  if (open_tokens_ > 0) {
    const DocumentRecord record = {.first_token = static_cast<std::uint64_t>(counts_.num_tokens),
                                   .num_bytes = static_cast<std::uint64_t>(open_bytes_),
                                   .first_path_byte = static_cast<std::uint64_t>(counts_.path_bytes)};
    documents_.write(&record, sizeof record);
    paths_.write(path.c_str(), path.size() + 1);
    counts_.num_tokens += open_tokens_;
    counts_.num_documents += 1;
    counts_.num_bytes += open_bytes_;
    counts_.path_bytes += static_cast<std::int64_t>(path.size()) + 1;
  }
  tokens_.keep();
  if (loss_) loss_->keep();
  open_bytes_ = open_tokens_ = 0;
}

void SplitWriter::drop_document() {
  tokens_.drop();
  if (loss_) loss_->drop();
  open_bytes_ = open_tokens_ = 0;
}

void SplitWriter::finish() {
  tokens_.finish();
  if (loss_) loss_->finish();
  documents_.finish();
  paths_.finish();
}

}  // namespace comba::data
