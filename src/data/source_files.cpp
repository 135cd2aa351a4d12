#include "data/source_files.h"

#include <fnmatch.h>

#include <algorithm>
#include <system_error>

#include "base/message.h"

namespace comba::data {
namespace {

namespace fs = std::filesystem;

void require_success(const std::error_code& error, const char* what, const fs::path& path) {
  require(!error, ErrorCode::io, "[pack] cannot ", what, " '", path.string(), "': ", error.message());
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& relative_path) {
  const std::string name = relative_path.substr(relative_path.rfind('/') + 1);
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    const bool by_path = pattern.find('/') != std::string::npos;
    return ::fnmatch(pattern.c_str(), (by_path ? relative_path : name).c_str(), 0) == 0;
  });
}

bool selected(const FileSelection& selection, const std::string& relative_path) {
  const bool included = selection.include.empty() || matches_any(selection.include, relative_path);
  return included && !matches_any(selection.exclude, relative_path);
}

/// Lists one directory and all below it.
class DirectoryLister {
 public:
  DirectoryLister(const FileSelection& selection, const fs::path& left_out, SourceFiles& found)
      : selection_(selection), left_out_(left_out), found_(found) {}

  void list(const fs::path& root) {
    std::vector<fs::path> pending = {root};  // a stack of our own: the depth of a tree is not ours to choose
    while (!pending.empty()) {
      const fs::path directory = std::move(pending.back());
      pending.pop_back();
      std::error_code error;
      fs::directory_iterator entry(directory, error);
      for (; !error && entry != fs::directory_iterator(); entry.increment(error)) visit(*entry, root, pending);
      require_success(error, "read directory", directory);
    }
  }

 private:
  void visit(const fs::directory_entry& entry, const fs::path& root, std::vector<fs::path>& pending) {
    const fs::path& path = entry.path();
    if (path.filename().native().starts_with('.')) return;
    std::error_code error;
    const fs::file_status status = entry.symlink_status(error);
    require_success(error, "read", path);
    if (fs::is_directory(status)) {
      std::error_code absent;  // no such directory yet: then it is not this one
      if (!fs::equivalent(path, left_out_, absent)) pending.push_back(path);
    } else if (fs::is_regular_file(status)) {
      std::string relative_path = path.lexically_relative(root).generic_string();
      if (!selected(selection_, relative_path)) return;
      const auto size = static_cast<std::int64_t>(entry.file_size(error));
      require_success(error, "read", path);
      found_.files.push_back({.relative_path = std::move(relative_path), .path = path, .num_bytes = size});
    } else if (fs::is_symlink(status)) {
      ++found_.num_symbolic_links;
    } else {
      ++found_.num_special_files;
    }
  }

  const FileSelection& selection_;
  const fs::path& left_out_;
  SourceFiles& found_;
};

}  // namespace

SourceFiles list_source_files(const std::vector<fs::path>& inputs, const FileSelection& selection,
                              const fs::path& left_out) {
  SourceFiles found;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    require_success(error, "read", input);
    if (fs::is_directory(status)) {
      DirectoryLister(selection, left_out, found).list(input);
      continue;
    }
    require(fs::is_regular_file(status), ErrorCode::io, "[pack] an input must be a regular file or a directory; got '",
            input.string(), "'");
    const auto size = static_cast<std::int64_t>(fs::file_size(input, error));
    require_success(error, "read", input);
    found.files.push_back({.relative_path = input.filename().string(), .path = input, .num_bytes = size});
  }
  std::stable_sort(found.files.begin(), found.files.end(),
                   [](const SourceFile& a, const SourceFile& b) { return a.relative_path < b.relative_path; });
  return found;
}

}  // namespace comba::data
