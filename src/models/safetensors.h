#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <map>
#include <string>

namespace comba::models {

using NamedTensors = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

/// A file in the safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
struct SafetensorsFile {
  NamedTensors tensors;  ///< views of the mapped file, which they keep alive: read only, clone() before writing to one
  Metadata metadata;     ///< the strings under __metadata__
};

/// Maps a file. Everything its header claims is checked before a tensor is handed out. Throws Error io, naming file and
/// tensor, when the file cannot be read or breaks a rule of the format: a header of at most 100 MB inside the file,
/// known element types, sizes that do not overflow and match their byte range, byte ranges that cover the data without
/// gap or overlap, each name once.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

/// Writes the tensors in the order of their names. The file appears whole or not at all.
/// Throws Error: invalid_argument for an element type the format has no name for, io when the file cannot be written.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors, const Metadata& metadata = {});

}  // namespace comba::models
