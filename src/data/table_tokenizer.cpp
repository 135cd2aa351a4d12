#include "data/table_tokenizer.h"

#include <cstring>

#include "base/file.h"
#include "base/message.h"
#include "data/base64.h"
#include "data/json.h"

namespace comba::data {

TableTokenizer::TableTokenizer(const std::filesystem::path& file, const std::string& python)
    : python_(python), file_(read_file(file)) {
  std::string header;
  auto helper = start(header, "tokenizer");
  nlohmann::json json = parse_json(header);
  json["file"] = to_base64(file_);
  json_ = json.dump();
  read_json(file.string());
  idle_.push_back(std::move(helper));
}

TableTokenizer::TableTokenizer(const std::string& json, const std::string& where, const std::string& python)
    : python_(python), json_(json) {
  read_json(where);
}

TableTokenizer::~TableTokenizer() = default;

std::unique_ptr<PythonHelper> TableTokenizer::start(std::string& header, const std::string& shown_as) const {
  auto helper = std::make_unique<PythonHelper>(python_, std::vector<std::string>{"tokenizer"}, shown_as);
  helper->send(file_);
  header = helper->receive();
  return helper;
}

void TableTokenizer::read_json(const std::string& where) {
  const nlohmann::json json = parse_json(json_);
  const auto fail_unless = [&](bool holds, const char* rule) {
    require(holds, ErrorCode::io, "[Tokenizer] '", where, "': ", rule, " (damaged file?)");
  };
  const auto has = [&](const char* key) { return json.is_object() && json.contains(key); };
  fail_unless(has("pieces") && json["pieces"].is_string(), "pieces must be a text in base64");
  fail_unless(has("bos") && json["bos"].is_number_integer(), "bos must be a whole number");
  fail_unless(has("leading_space") && json["leading_space"].is_boolean(), "leading_space must be true or false");
  fail_unless(has("source_md5") && json["source_md5"].is_string(), "source_md5 must be a text");
  fail_unless(has("file") && json["file"].is_string(), "file must be a text in base64");
  auto file = from_base64(json["file"].get_ref<const std::string&>());
  fail_unless(file.has_value(), "file must be a text in base64");
  file_ = *std::move(file);
  const auto blob = from_base64(json["pieces"].get_ref<const std::string&>());
  fail_unless(blob.has_value(), "pieces must be a text in base64");
  for (std::string_view rest = *blob; !rest.empty();) {
    std::uint32_t size = 0;
    fail_unless(rest.size() >= sizeof size, "pieces must each have a size and as many bytes");
    std::memcpy(&size, rest.data(), sizeof size);
    rest.remove_prefix(sizeof size);
    fail_unless(size <= rest.size(), "pieces must each have a size and as many bytes");
    text_ += rest.substr(0, size);
    ends_.push_back(text_.size());
    rest.remove_prefix(size);
  }
  bos_ = json["bos"].get<std::int64_t>();
  fail_unless(bos_ >= -1 && bos_ < num_pieces(), "bos must be one of the ids, or -1");
  leading_space_ = json["leading_space"].get<bool>();
  source_md5_ = json["source_md5"].get<std::string>();
}

std::string TableTokenizer::description() const {
  return concat("table of ", num_pieces(), " pieces, from a tokenizer.json of md5 ", source_md5_);
}

void TableTokenizer::append_ids(std::string_view text, bool, std::vector<std::uint32_t>& ids) const {
  if (text.empty()) return;
  std::unique_ptr<PythonHelper> helper;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      helper = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  std::string header;
  if (helper == nullptr) helper = start(header, "tokenizer");
  helper->send(text);
  const std::string answer = helper->receive();
  const std::size_t before = ids.size(), count = answer.size() / sizeof(std::uint32_t);
  ids.resize(before + count);
  std::memcpy(ids.data() + before, answer.data(), count * sizeof(std::uint32_t));
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(helper));
}

void TableTokenizer::append_text(std::int64_t id, std::string& text) const {
  if (id >= num_pieces()) return;
  const auto index = static_cast<std::size_t>(id);
  const std::size_t start = index == 0 ? 0 : ends_[index - 1];
  text.append(text_, start, ends_[index] - start);
}

}  // namespace comba::data
