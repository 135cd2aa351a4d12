#include "tasks/results_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file.h"
#include "base/message.h"

namespace comba::tasks {
namespace fs = std::filesystem;
namespace {

using Json = ResultsFile::Json;

/// While it lives no other process has one of the same directory.
class DirectoryLock {
 public:
  explicit DirectoryLock(const fs::path& directory)
      : descriptor_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    const bool locked = descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX) == 0;
    const int reason = errno;
    if (!locked && descriptor_ >= 0) ::close(descriptor_);
    require(locked, ErrorCode::io, "[sweep] cannot lock ", directory.string(), ": ", std::strerror(reason));
  }
  ~DirectoryLock() { ::close(descriptor_); }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int descriptor_;
};

Json read_results(const fs::path& path) {
  Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  require(json.is_object() && json.contains("cells") && json["cells"].is_array(), ErrorCode::io,
          "[sweep] the file must be results of this program; got ", path.string());
  return json;
}

void require_same_settings(const fs::path& path, const Json& json, const Json& settings) {
  for (const auto& [key, value] : settings.items()) {
    require(json.contains(key) && json[key] == value, ErrorCode::invalid_argument, "[sweep] ", path.string(),
            " can only go on with its own settings; got another ", key, ": ", value.dump());
  }
}

}  // namespace

ResultsFile::ResultsFile(fs::path path, const Json& settings, bool resume) : path_(std::move(path)) {
  const fs::path directory = path_.parent_path();
  const bool exists = fs::exists(path_);
  require(!exists || resume, ErrorCode::invalid_argument, "[sweep] ", directory.string(),
          " holds results (continue them with --resume)");
  require(exists || !resume, ErrorCode::invalid_argument, "[sweep] there is nothing to resume: ", path_.string(),
          " does not exist");
  if (exists) {
    json_ = read_results(path_);
    require_same_settings(path_, json_, settings);
    return;
  }
  std::error_code failure;
  fs::create_directories(directory, failure);
  require(!failure, ErrorCode::io, "[sweep] cannot make ", directory.string(), ": ", failure.message());
  json_ = settings;
  json_["cells"] = Json::array();
  write();
}

bool ResultsFile::has(const Json& identity) const {
  for (const Json& known : cells()) {
    bool same = true;
    for (const auto& [key, value] : identity.items()) same = same && known.contains(key) && known[key] == value;
    if (same) return true;
  }
  return false;
}

void ResultsFile::add(const Json& cell) {
  const DirectoryLock lock(path_.parent_path());
  json_ = read_results(path_);
  json_["cells"].push_back(cell);
  write();
}

void ResultsFile::write() const { write_file_atomically(path_, json_.dump(1) + '\n'); }

}  // namespace comba::tasks
