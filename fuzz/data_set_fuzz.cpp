// Any damage to a packed data set: opening and reading it must succeed or throw Error.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/file.h"
#include "comba/error.h"
#include "data/pack.h"
#include "data/token_dataset.h"

namespace {

namespace fs = std::filesystem;
using comba::data::TokenDataset;

constexpr const char* kFiles[] = {"index.json",         "train.documents",    "train.paths",
                                  "train-00000.tokens", "train-00001.tokens", "train-00000.loss"};

/// A small data set with every kind of file, and what its files hold when whole.
struct Sample {
  fs::path directory;
  std::vector<std::string> whole;

  Sample() {
    std::string name = (fs::temp_directory_path() / "comba-fuzz-XXXXXX").string();
    directory = ::mkdtemp(name.data());
    const std::string lines = R"({"q": "why?", "text": "so"}
{"q": "", "text": "a second one"}
{"q": "and?", "text": "a third"}
)";
    comba::write_file_atomically(directory / "a.jsonl", lines);
    comba::data::pack({.inputs = {directory / "a.jsonl"},
                       .output = directory / "data",
                       .records = {.text = "text", .prompt = "q"},
                       .shard_tokens = 13});
    for (const char* file : kFiles) whole.push_back(comba::read_file(directory / "data" / file));
  }
  ~Sample() { fs::remove_all(directory); }
};

/// The input is a list of changes: which file, where, and by what; or what to cut off, or to write in place of all.
std::string damaged(std::string content, const std::uint8_t*& data, const std::uint8_t* end) {
  const auto byte = [&]() -> std::size_t { return data < end ? *data++ : 0; };
  const std::size_t kind = byte() % 8;
  if (kind == 0) {
    content.resize(byte() % (content.size() + 1));
  } else if (kind == 1) {
    content.assign(reinterpret_cast<const char*>(data), static_cast<std::size_t>(end - data));
  } else {
    for (std::size_t i = 0; i < kind && !content.empty(); ++i) {
      const std::size_t place = (byte() * 256 + byte()) % content.size();
      content[place] = static_cast<char>(byte());
    }
  }
  return content;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Sample sample;
  const std::uint8_t* end = data + size;
  for (std::size_t i = 0; i < std::size(kFiles); ++i) {
    const bool spoil = data < end && *data++ % 3 == 0;
    const std::string content = spoil ? damaged(sample.whole[i], data, end) : sample.whole[i];
    fs::remove(sample.directory / "data" / kFiles[i]);
    std::ofstream(sample.directory / "data" / kFiles[i], std::ios::binary) << content;
  }
  try {
    const auto dataset = TokenDataset::open(sample.directory / "data", comba::data::Split::train);
    for (std::int64_t i = 0; i < dataset.num_documents(); ++i) {
      const auto document = dataset.document(i);
      dataset.document_at(document.first_token);
    }
    std::vector<std::int64_t> ids(static_cast<std::size_t>(dataset.num_tokens()));
    dataset.read_tokens(0, ids);
    dataset.read_labels(0, ids);
  } catch (const comba::Error&) {
    // A rule was broken, and said so.
  }
  return 0;
}
