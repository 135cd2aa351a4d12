#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

/// Input of commands: files, or standard input under the name "-".
namespace comba::cli {

/// The whole content. Throws Error(io).
std::string read_input(const std::filesystem::path& path);

/// Gives `use` the object of each line that is not empty, and where it stands: "FILE:3". Throws Error(io) for a file
/// that cannot be read, or a line that is no JSON object.
void for_each_json_line(const std::filesystem::path& path,
                        const std::function<void(const nlohmann::json& object, const std::string& where)>& use);

/// The text under `key`. Throws Error(io) when there is none.
std::string text_of(const nlohmann::json& object, const std::string& key, const std::string& where);

}  // namespace comba::cli
