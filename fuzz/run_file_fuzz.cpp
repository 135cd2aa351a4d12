// Any text as a run file, as assignments over it, or as the JSON of a model's or a run's configuration: reading must
// succeed or throw Error, and what is then printed must read as the same settings again.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "comba/error.h"
#include "models/model_config.h"
#include "run_config.h"
#include "train_settings.h"
#include "training/train_config.h"

namespace {

namespace fs = std::filesystem;

constexpr const char* kWholeFile = R"([model]
hidden_size = 32
num_heads = 2
head_dim = 16
vocab_size = 264
attn = {layers = [1, 3], num_heads = 4}
[data]
path = "data"
mixture = [{path = "a", weight = 1}, {path = 'b', weight = 0.5}]
[train]
steps = 60
learning_rate = 1e-2
dtype = "bf16"
reset_at_documents = true
[output]
path = "run"
)";

/// What a hostile file is made of, beside any bytes.
constexpr const char* kSnippets[] = {"[train]\n",
                                     "[model]\n",
                                     "[data]\n",
                                     "[[data.mixture]]\n",
                                     "mixture = ",
                                     "steps = ",
                                     "learning_rate = ",
                                     "threads = ",
                                     "path = ",
                                     "seed = ",
                                     "hidden_size = ",
                                     "num_heads = ",
                                     "head_dim = ",
                                     "layers = ",
                                     "attn = ",
                                     "train.steps = ",
                                     "= ",
                                     "\n",
                                     "[",
                                     "]",
                                     "{",
                                     "}",
                                     ", ",
                                     "{path = \"x\", weight = ",
                                     "\"",
                                     "'''",
                                     "\"\"\"",
                                     "\\u0000",
                                     "\\ud800",
                                     "# ",
                                     "9223372036854775807",
                                     "-9223372036854775808",
                                     "99999999999999999999",
                                     "1e999",
                                     "inf",
                                     "-nan",
                                     "0x7fffffffffffffff",
                                     "0",
                                     "-1",
                                     "3",
                                     "1979-05-27T07:32:00Z",
                                     "true",
                                     "\"a text\"",
                                     "\xff",
                                     "\xef\xbb\xbf",
                                     "\r"};

/// A file that holds what is to be read.
struct Sample {
  std::string path = (fs::temp_directory_path() / "comba-fuzz-XXXXXX").string();

  Sample() {
    if (::mkstemp(path.data()) < 0) std::abort();
  }
  ~Sample() { fs::remove(path); }

  void write(const std::string& text) const { std::ofstream(path, std::ios::binary) << text; }
};

const Sample& sample() {
  static const Sample sample;
  return sample;
}

/// The settings in force, as TOML.
std::string read(const comba::cli::RunConfigFlags& flags) {
  comba::cli::RunConfig config(flags);
  comba::cli::read_train_settings(config);
  return config.to_toml();
}

void try_run_file(const std::string& text, const std::string& assignment) {
  sample().write(text);
  comba::cli::RunConfigFlags flags{.file = sample().path, .assignments = {}};
  if (!assignment.empty()) flags.assignments.push_back(assignment);
  std::string printed;
  try {
    printed = read(flags);
  } catch (const comba::Error&) {
    return;  // a rule was broken, and said so
  }
  sample().write(printed);
  if (read({.file = sample().path, .assignments = {}}) != printed) std::abort();
}

void try_json(const std::string& text) {
  try {
    comba::models::to_json(comba::models::parse_model_config(text));
  } catch (const comba::Error&) {
  }
  try {
    comba::training::parse_train_config(text);
  } catch (const comba::Error&) {
  }
}

/// `whole` with snippets, and bytes, put over and between what it has.
std::string damaged(std::string whole, const std::uint8_t*& data, const std::uint8_t* end) {
  const auto byte = [&]() -> std::size_t { return data < end ? *data++ : 0; };
  for (std::size_t changes = byte() % 6; changes > 0; --changes) {
    const std::size_t place = (byte() * 256 + byte()) % (whole.size() + 1), kind = byte();
    const std::string piece =
        kind < 32 ? std::string(1, static_cast<char>(byte())) : kSnippets[kind % std::size(kSnippets)];
    whole.replace(place, kind % 3 == 0 ? byte() % 16 : 0, piece);
  }
  return whole;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::string whole_model = comba::models::to_json(comba::models::ModelConfig());
  static const std::string whole_record = comba::training::to_json(comba::training::TrainConfig());
  const std::uint8_t* end = data + size;
  const int mode = size > 0 ? *data++ % 8 : 0;
  if (mode == 0) {
    const std::string bytes(reinterpret_cast<const char*>(data), static_cast<std::size_t>(end - data));
    try_run_file(bytes, "");
    try_json(bytes);
  } else if (mode == 1) {
    try_json(damaged(whole_model, data, end));
    try_json(damaged(whole_record, data, end));
  } else if (mode == 2) {
    std::string text;
    while (data < end) text += kSnippets[*data++ % std::size(kSnippets)];
    try_run_file(text, "");
  } else {
    const std::string text = damaged(kWholeFile, data, end);
    try_run_file(text, mode == 3 ? damaged("train.steps=12", data, end) : "");
  }
  return 0;
}
