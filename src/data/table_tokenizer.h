#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "data/python_helper.h"
#include "data/tokenizer_model.h"

namespace comba::data {

/// The ids of a Hugging Face tokenizer.json: encoded by Python's package tokenizers, decoded here from a table.
class TableTokenizer : public TokenizerModel {
 public:
  /// Of a file tokenizer.json. Throws Error (io) with what `python` said of it.
  TableTokenizer(const std::filesystem::path& file, const std::string& python);
  /// From to_json(); runs `python` only when there is a text to encode. Throws Error (io) naming `where`.
  TableTokenizer(const std::string& json, const std::string& where, const std::string& python);
  ~TableTokenizer() override;

  std::string to_json() const override { return json_; }
  std::string description() const override;
  std::int64_t vocab() const override { return num_pieces() + (bos_ < 0 ? 1 : 0); }
  std::int64_t bos() const override { return bos_ < 0 ? num_pieces() : bos_; }
  void append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const override;
  void append_text(std::int64_t id, std::string& text) const override;
  bool adds_leading_space() const override { return leading_space_; }

 private:
  std::int64_t num_pieces() const { return static_cast<std::int64_t>(ends_.size()); }
  void read_json(const std::string& where);
  /// A helper that has read `file_` and sent `header`, the JSON of this tokenizer but for the file itself.
  std::unique_ptr<PythonHelper> start(std::string& header, const std::string& shown_as) const;

  std::string python_;
  std::string file_;  // what tokenizer.json holds
  std::string json_;
  std::string source_md5_;
  std::int64_t bos_ = -1;
  bool leading_space_ = false;
  std::string text_;                                         // of all pieces, one after another
  std::vector<std::size_t> ends_;                            // of each piece in text_
  mutable std::mutex mutex_;                                 // over idle_
  mutable std::vector<std::unique_ptr<PythonHelper>> idle_;  // as many as threads encode at once
};

}  // namespace comba::data
