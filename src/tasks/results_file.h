#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace comba::tasks {

/// The file of a comparison whose cells are made one by one, by one process or several: its settings, and in "cells"
/// each cell from when it is finished.
class ResultsFile {
 public:
  using Json = nlohmann::ordered_json;

  /// Begins a file, or with `resume` goes on with one, whose settings must be the same. Throws Error: invalid_argument
  /// when there is a file and no `resume`, none and `resume`, or other settings; io.
  ResultsFile(std::filesystem::path path, const Json& settings, bool resume);

  const std::filesystem::path& path() const { return path_; }
  const Json& cells() const { return json_["cells"]; }
  /// Whether there is a cell with these keys and values.
  bool has(const Json& identity) const;
  /// Adds a cell, and takes in what other processes have added.
  void add(const Json& cell);

 private:
  void write() const;

  std::filesystem::path path_;
  Json json_;
};

}  // namespace comba::tasks
