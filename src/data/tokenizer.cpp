#include "data/tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/message.h"

namespace comba::data {

Tokenizer Tokenizer::from_json(const std::string& json_text, const std::string& where) {
  const nlohmann::json json = nlohmann::json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  require(json.is_object(), ErrorCode::io, "[Tokenizer] '", where, "' must hold a JSON object");
  const auto type = json.find("type");
  require(type != json.end() && *type == "bytes", ErrorCode::io, "[Tokenizer] '", where,
          "': type must be \"bytes\"; got ", type == json.end() ? "nothing" : type->dump());
  return Tokenizer();
}

std::string Tokenizer::to_json() const { return R"({"type": "bytes"})"; }

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int64_t> ids;
  ids.reserve(text.size());
  for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids) const {
  std::string text;
  for (const std::int64_t id : ids) {
    require(id >= 0, ErrorCode::invalid_argument, "[Tokenizer::decode] ids must not be negative; got ", id);
    if (id < bos()) text += static_cast<char>(id);
  }
  return text;
}

}  // namespace comba::data
