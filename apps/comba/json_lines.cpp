#include "json_lines.h"

#include <string_view>

#include "base/file.h"
#include "base/message.h"

namespace comba::cli {

std::string read_input(const std::filesystem::path& path) { return read_file(path == "-" ? "/dev/stdin" : path); }

void for_each_json_line(const std::filesystem::path& path,
                        const std::function<void(const nlohmann::json& object, const std::string& where)>& use) {
  const std::string content = read_input(path);
  std::int64_t number = 0;
  for (std::string_view rest = content; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = concat(path.string(), ':', number);
    const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    require(object.is_object(), ErrorCode::io, "[jsonl] a line must be a JSON object; got ", line.substr(0, 40), " (",
            where, ")");
    use(object, where);
  }
}

std::string text_of(const nlohmann::json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  require(found != object.end() && found->is_string(), ErrorCode::io, "[jsonl] ", key, " must be a text; got ",
          found == object.end() ? "nothing" : found->dump(), " (", where, ")");
  return found->get<std::string>();
}

}  // namespace comba::cli
