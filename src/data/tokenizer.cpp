#include "data/tokenizer.h"

#include "base/file.h"
#include "base/message.h"
#include "data/base64.h"
#include "data/json.h"
#include "data/sentencepiece.h"
#include "data/table_tokenizer.h"

namespace comba::data {
namespace {

std::string base64_field(const nlohmann::json& json, const char* key, const std::string& where) {
  const auto found = json.find(key);
  std::optional<std::string> bytes;
  if (found != json.end() && found->is_string()) bytes = from_base64(found->get_ref<const std::string&>());
  require(bytes.has_value(), ErrorCode::io, "[Tokenizer] '", where, "': ", key, " must be a text in base64; got ",
          found == json.end() ? "nothing" : shown(*found));
  return *std::move(bytes);
}

}  // namespace

Tokenizer Tokenizer::from_json(const std::string& json_text, const std::string& where, const std::string& python) {
  const nlohmann::json json = parse_json(json_text);
  require(json.is_object(), ErrorCode::io, "[Tokenizer] '", where, "' must hold a JSON object");
  const auto found = json.find("type");
  const std::string type = found != json.end() && found->is_string() ? found->get<std::string>() : "";
  if (type == "bytes") return Tokenizer();
  if (type == "table") return Tokenizer(std::make_shared<TableTokenizer>(json.dump(), where, python));
  require(type == "sentencepiece", ErrorCode::io, "[Tokenizer] '", where,
          "': type must be \"bytes\", \"sentencepiece\" or \"table\"; got ",
          found == json.end() ? "nothing" : shown(*found));
  return Tokenizer(std::make_shared<SentencePiece>(base64_field(json, "model", where), where));
}

Tokenizer Tokenizer::from_hugging_face(const std::filesystem::path& path, const std::string& python) {
  return Tokenizer(std::make_shared<TableTokenizer>(path, python));
}

Tokenizer Tokenizer::from_sentencepiece(const std::filesystem::path& path) {
  return Tokenizer(std::make_shared<SentencePiece>(read_file(path), path.string()));
}

std::string Tokenizer::to_json() const { return model_ ? model_->to_json() : R"({"type": "bytes"})"; }

std::string Tokenizer::description() const { return model_ ? model_->description() : "bytes"; }

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, bool starts_document) const {
  std::vector<std::uint32_t> ids;
  append_ids(text, starts_document, ids);
  return {ids.begin(), ids.end()};
}

void Tokenizer::append_ids(std::string_view text, bool starts_document, std::vector<std::uint32_t>& ids) const {
  if (model_) return model_->append_ids(text, starts_document, ids);
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  ids.insert(ids.end(), bytes, bytes + text.size());
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids) const {
  std::string text;
  for (const std::int64_t id : ids) {
    require(id >= 0, ErrorCode::invalid_argument, "[Tokenizer::decode] ids must not be negative; got ", id);
    if (id == bos() || id >= vocab()) continue;
    if (model_) {
      model_->append_text(id, text);
    } else {
      text += static_cast<char>(id);
    }
  }
  const bool starts_document = !ids.empty() && ids[0] == bos();
  if (starts_document && model_ && model_->adds_leading_space() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace comba::data
