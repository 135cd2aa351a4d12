#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/message.h"
#include "base/nearest_name.h"

namespace comba::models {

using Json = nlohmann::ordered_json;

/// Takes keys out of a JSON object one by one and knows at the end which ones nobody asked for.
class KeyReader {
 public:
  KeyReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    require(object.is_object(), ErrorCode::invalid_argument, "[model_config] ", path_.empty() ? "the text" : path_,
            " must be a JSON object; got ", object.type_name());
  }

  /// The value of a key, or null when it is absent.
  const Json& at(const std::string& key) {
    static const Json null;
    asked_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() ? null : *found;
  }

  /// Overwrites `value` unless the key is absent or null. Returns whether it did.
  template <class T>
  bool read(const std::string& key, T& value) {
    const Json& json = at(key);
    if (json.is_null()) return false;
    value = convert<T>(key, json);
    return true;
  }

  template <class T>
  void read_required(const std::string& key, T& value) {
    require(read(key, value), ErrorCode::invalid_argument, "[model_config] key ", path_ + key, " is missing");
  }

  /// A switch of a feature that nothing here implements: it may stand at the value that leaves the feature out.
  void require_value(const std::string& key, const std::vector<Json>& allowed) {
    const Json& json = at(key);
    require(json.is_null() || std::find(allowed.begin(), allowed.end(), json) != allowed.end(), ErrorCode::unsupported,
            "[model_config] ", path_ + key, " must be ", allowed.front().dump(), "; got ", json.dump());
  }

  /// Throws for a key that was not asked for and is not in `without_effect`.
  void finish(const std::set<std::string>& without_effect) const {
    for (const auto& [key, value] : object_.items()) {
      if (asked_.contains(key) || without_effect.contains(key) || key.starts_with('_')) continue;
      const std::vector<std::string> known(asked_.begin(), asked_.end());
      throw Error(ErrorCode::invalid_argument, concat("[model_config] unknown key ", path_, key,
                                                      "; the nearest known is ", path_, nearest_name(key, known)));
    }
  }

 private:
  template <class T>
  T convert(const std::string& key, const Json& json) const {
    bool fits = false;
    const char* wanted = "a text";
    if constexpr (std::is_same_v<T, bool>) {
      fits = json.is_boolean();
      wanted = "true or false";
    } else if constexpr (std::is_same_v<T, int64_t>) {
      fits = json.is_number_integer() && (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t{INT64_MAX});
      wanted = "a whole number";
    } else if constexpr (std::is_same_v<T, double>) {
      fits = json.is_number();
      wanted = "a number";
    } else {
      fits = json.is_string();
    }
    require(fits, ErrorCode::invalid_argument, "[model_config] ", path_, key, " must be ", wanted, "; got ",
            json.dump());
    return json.get<T>();
  }

  const Json& object_;
  std::string path_;
  std::set<std::string> asked_;
};

}  // namespace comba::models
