// Any bytes as a safetensors file, and any damage to a good one: reading it, and every tensor of it, must succeed or
// throw Error.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "comba/error.h"
#include "models/safetensors.h"

/// LibTorch, which is not compiled with the sanitizers, keeps what it has made once.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace {

namespace fs = std::filesystem;

constexpr const char* kHeader =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"c":{"dtype":"I64","shape":[0],"data_offsets":[26,26]}})";

/// What a hostile header is made of, beside any bytes.
constexpr const char* kSnippets[] = {"9223372036854775807",
                                     "18446744073709551615",
                                     "-1",
                                     "0",
                                     "1e9",
                                     "[",
                                     "]",
                                     "{",
                                     "}",
                                     ",",
                                     "\"",
                                     ":",
                                     "\"F64\"",
                                     "\"BOOL\"",
                                     "\"a\":",
                                     "4294967296",
                                     "null",
                                     "0,0",
                                     "\\u0000"};

struct Sample {
  std::string path = (fs::temp_directory_path() / "comba-fuzz-XXXXXX").string();

  Sample() {
    if (::mkstemp(path.data()) < 0) std::abort();
  }
  ~Sample() { fs::remove(path); }
};

void try_file(const std::string& bytes) {
  static const Sample sample;
  std::ofstream(sample.path, std::ios::binary) << bytes;
  try {
    const comba::models::SafetensorsFile file = comba::models::read_safetensors(sample.path);
    for (const auto& [name, tensor] : file.tensors) {
      std::string copy(tensor.nbytes(), '\0');
      if (!copy.empty()) std::memcpy(copy.data(), tensor.const_data_ptr(), copy.size());
    }
  } catch (const comba::Error&) {
    // A rule was broken, and said so.
  }
}

std::string with_length(const std::string& header, std::size_t num_data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  return file + header + std::string(num_data_bytes, 'x');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::uint8_t* end = data + size;
  const auto byte = [&]() -> std::size_t { return data < end ? *data++ : 0; };
  if (byte() % 8 == 0) {
    const std::string bytes(reinterpret_cast<const char*>(data), static_cast<std::size_t>(end - data));
    try_file(bytes);
    try_file(with_length(bytes, 8));
    return 0;
  }
  std::string header = kHeader;
  for (std::size_t changes = byte() % 4; changes > 0; --changes) {
    const std::size_t place = (byte() * 256 + byte()) % (header.size() + 1), kind = byte();
    const std::string piece =
        kind < 32 ? std::string(1, static_cast<char>(byte())) : kSnippets[kind % std::size(kSnippets)];
    header.replace(place, kind % 3 == 0 ? byte() % 8 : 0, piece);
  }
  std::string file = with_length(header, 26);
  if (byte() % 8 == 0) file.resize(byte() * 2 % file.size());
  if (byte() % 8 == 0 && file.size() >= 8) file[byte() % 8] = static_cast<char>(byte());
  try_file(file);
  return 0;
}
