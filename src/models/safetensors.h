#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace comba::models {

using NamedTensors = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

/// A file in the safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
/// Everything the header claims is checked against the file before a tensor is handed out.
struct SafetensorsFile {
  NamedTensors tensors;  ///< views of the mapped file, read-only by contract: clone() before writing to one
  Metadata metadata;     ///< the strings under __metadata__
};

/// Maps a file. Throws Error io, naming file and tensor, when it cannot be read or breaks a rule of the format: header
/// of at most 100 MB inside the file, known dtypes, sizes that do not overflow and match their byte range, ranges that
/// cover the data without gap or overlap, unique names.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

/// Writes tensors in the order of their names. The file appears whole or not at all.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors, const Metadata& metadata = {});

}  // namespace comba::models
