#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/message.h"
#include "models/safetensors.h"
#include "models/safetensors_dtype.h"

namespace comba::models {
namespace {

const char* name_of(at::ScalarType type, const std::string& tensor) {
  const auto known = std::find_if(kSafetensorsDtypes.begin(), kSafetensorsDtypes.end(),
                                  [&](const SafetensorsDtype& dtype) { return dtype.type == type; });
  require(known != kSafetensorsDtypes.end(), ErrorCode::invalid_argument,
          "[safetensors] dtype must be one the format has; got ", type, " (", tensor, ")");
  return known->name;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors, const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    require(name != "__metadata__", ErrorCode::invalid_argument, "[safetensors] a tensor cannot be named ", name);
    const uint64_t end = offset + tensor.nbytes();
    header[name] = {{"dtype", name_of(tensor.scalar_type(), name)},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // keeps the data aligned to 8 bytes
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
    file.write(plain.const_data_ptr(), plain.nbytes());
  }
  file.commit();
}

}  // namespace comba::models
