#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/file.h"
#include "base/message.h"
#include "models/safetensors.h"
#include "models/safetensors_dtype.h"

static_assert(std::endian::native == std::endian::little, "the format is little-endian, and read as it lies");

namespace comba::models {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kLongestHeader = 100'000'000;

struct Entry {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> sizes;
  uint64_t begin = 0;  // in bytes from the start of the data
  uint64_t end = 0;
};

/// The rules of one file, each with its message.
class Checker {
 public:
  explicit Checker(const std::filesystem::path& path) : path_(path.string()) {}

  template <class... Parts>
  void rule(bool holds, const Parts&... parts) const {
    require(holds, ErrorCode::io, "[safetensors] ", parts..., " (", path_, ")");
  }

  uint64_t whole_number(const Json& json, const std::string& name) const {
    rule(json.is_number_unsigned(), "sizes and offsets must be whole numbers; got ", json.dump(), " in ", name);
    return json.get<uint64_t>();
  }

 private:
  std::string path_;
};

/// Watches the parser. A name that stands twice in one object is refused, since which one counts would depend on the
/// reader; so is nesting beyond what the format has, before it takes memory.
class HeaderWatch {
 public:
  explicit HeaderWatch(const Checker& check) : check_(check) {}

  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    constexpr int kDeepest = 3;  // a number in the shape of a tensor
    check_.rule(depth <= kDeepest, "the header must not nest deeper than a tensor's shape; got depth ", depth);
    if (event == Json::parse_event_t::object_start) open_objects_.emplace_back();
    if (event == Json::parse_event_t::object_end) open_objects_.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      check_.rule(open_objects_.back().insert(key).second, "a name must stand once; got ", key, " twice");
    }
    return true;
  }

 private:
  const Checker& check_;
  std::vector<std::set<std::string>> open_objects_;
};

std::string_view header_text(const Checker& check, std::span<const std::byte> file) {
  check.rule(file.size() >= kLengthBytes, "a file has at least ", kLengthBytes, " bytes; got ", file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  check.rule(length <= kLongestHeader, "a header has at most ", kLongestHeader, " bytes; got ", length);
  check.rule(length <= file.size() - kLengthBytes, "the header must lie inside the file; got ", length, " of ",
             file.size() - kLengthBytes, " bytes");
  return {reinterpret_cast<const char*>(file.data() + kLengthBytes), length};
}

Json parse_header(const Checker& check, std::string_view text) {
  Json header;
  try {
    header = Json::parse(text, HeaderWatch(check));
  } catch (const Json::exception& error) {
    check.rule(false, "the header must be JSON; ", error.what());
  }
  check.rule(header.is_object(), "the header must be a JSON object; got ", header.type_name());
  return header;
}

Entry parse_entry(const Checker& check, const std::string& name, const Json& json, uint64_t data_bytes) {
  check.rule(json.is_object() && json.contains("dtype") && json.contains("shape") && json.contains("data_offsets") &&
                 json["dtype"].is_string() && json["shape"].is_array() && json["data_offsets"].is_array() &&
                 json["data_offsets"].size() == 2,
             "a tensor needs dtype, shape and two data_offsets; got ", json.dump(), " for ", name);
  Entry entry;
  entry.name = name;
  const auto& dtype_name = json["dtype"].get_ref<const std::string&>();
  const auto dtype = std::find_if(kSafetensorsDtypes.begin(), kSafetensorsDtypes.end(),
                                  [&](const SafetensorsDtype& known) { return known.name == dtype_name; });
  check.rule(dtype != kSafetensorsDtypes.end(), "dtype of ", name, " must be a known one; got ", dtype_name);
  entry.type = dtype->type;

  uint64_t bytes = c10::elementSize(entry.type);
  int64_t stride = 1;  // LibTorch computes them of empty tensors too
  for (const Json& size : json["shape"]) {
    const uint64_t value = check.whole_number(size, name);
    check.rule(value <= INT64_MAX && !__builtin_mul_overflow(bytes, value, &bytes) &&
                   !__builtin_mul_overflow(stride, std::max<int64_t>(static_cast<int64_t>(value), 1), &stride),
               "the size of ", name, " must fit in 64 bits; got ", json["shape"].dump());
    entry.sizes.push_back(static_cast<int64_t>(value));
  }
  entry.begin = check.whole_number(json["data_offsets"][0], name);
  entry.end = check.whole_number(json["data_offsets"][1], name);
  check.rule(entry.begin <= entry.end && entry.end <= data_bytes, "the bytes of ", name, " must lie inside the ",
             data_bytes, " bytes of data; got ", json["data_offsets"].dump(),
             entry.end > data_bytes ? " (truncated?)" : "");
  check.rule(entry.end - entry.begin == bytes, "the byte range of ", name, " must match its shape, ", bytes,
             " bytes; got ", json["data_offsets"].dump());
  return entry;
}

Metadata parse_metadata(const Checker& check, const Json& json) {
  check.rule(json.is_object(), "__metadata__ must be an object; got ", json.type_name());
  Metadata metadata;
  for (const auto& [key, value] : json.items()) {
    check.rule(value.is_string(), "__metadata__ must hold texts; got ", value.dump(), " for ", key);
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

void check_ranges(const Checker& check, std::vector<Entry>& entries, uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    check.rule(entry.begin == end, "tensors must follow each other without gap or overlap; ", entry.name,
               " should begin at byte ", end, ", got ", entry.begin);
    end = entry.end;
  }
  check.rule(end == data_bytes, "tensors must cover the data; got ", end, " of ", data_bytes, " bytes");
}

at::Tensor make_tensor(const Entry& entry, std::span<const std::byte> data, const std::shared_ptr<MappedFile>& mapped) {
  const std::byte* bytes = data.data() + entry.begin;
  if (reinterpret_cast<std::uintptr_t>(bytes) % c10::elementSize(entry.type) != 0) {
    // The format allows elements at any address, C++ does not.
    at::Tensor copy = at::empty(entry.sizes, entry.type);
    if (copy.numel() > 0) std::memcpy(copy.mutable_data_ptr(), bytes, entry.end - entry.begin);
    return copy;
  }
  // LibTorch knows no tensor of const elements; the mapping itself is read-only.
  return at::from_blob(
      const_cast<std::byte*>(bytes), entry.sizes, [mapped](void*) {}, entry.type);
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& path) {
  const auto mapped = std::make_shared<MappedFile>(path);
  const std::span<const std::byte> file = mapped->bytes();
  const Checker check(path);
  const std::string_view text = header_text(check, file);
  const Json header = parse_header(check, text);
  const std::span<const std::byte> data = file.subspan(kLengthBytes + text.size());

  SafetensorsFile result;
  std::vector<Entry> entries;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") {
      result.metadata = parse_metadata(check, json);
    } else {
      entries.push_back(parse_entry(check, name, json, data.size()));
    }
  }
  check_ranges(check, entries, data.size());
  for (const Entry& entry : entries) result.tensors[entry.name] = make_tensor(entry, data, mapped);
  return result;
}

}  // namespace comba::models
