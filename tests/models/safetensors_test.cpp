#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <torch/types.h>

#include <cstring>
#include <fstream>

#include "base/file.h"
#include "comba/error.h"
#include "support/temporary_directory.h"

namespace comba::models {
namespace {

using comba::testing::TemporaryDirectory;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;

TEST(Safetensors, EveryDtypeAndShapeSurvivesARoundTrip) {
  const TemporaryDirectory directory;
  NamedTensors tensors;
  for (at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                              at::kChar, at::kByte, at::kBool}) {
    tensors[std::string("tensor ") + c10::toString(type)] = at::randint(0, 2, {3, 5}).to(type);
  }
  tensors["scalar"] = at::full({}, 2.5);
  tensors["empty"] = at::empty({4, 0, 2});
  tensors["transposed"] = at::randn({3, 4}).t();
  tensors["\"quoted\" \u00e9"] = at::randn({1});
  const Metadata metadata = {{"format", "pt"}, {"note", "a\nb"}};
  write_safetensors(directory.path() / "x.safetensors", tensors, metadata);

  const SafetensorsFile file = read_safetensors(directory.path() / "x.safetensors");
  EXPECT_EQ(file.metadata, metadata);
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(file.tensors.at(name), tensor)) << name;
  }
}

TEST(Safetensors, TensorsOutliveTheFile) {
  const TemporaryDirectory directory;
  const at::Tensor tensor = at::randn({1000});
  write_safetensors(directory.path() / "x.safetensors", {{"x", tensor}});
  at::Tensor read = read_safetensors(directory.path() / "x.safetensors").tensors.at("x");
  std::filesystem::remove(directory.path() / "x.safetensors");
  EXPECT_TRUE(at::equal(read, tensor));
}

TEST(Safetensors, WhatTheFormatCannotHoldIsRefused) {
  const TemporaryDirectory directory;
  const auto write = [&](const std::string& name, const at::Tensor& tensor) {
    write_safetensors(directory.path() / "x.safetensors", {{name, tensor}});
  };
  EXPECT_THROW(write("x", at::zeros({1}, at::kComplexFloat)), Error);
  EXPECT_THROW(write("__metadata__", at::zeros({1})), Error);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

/// A file whose header is this text, whatever it says, and whose data has this many bytes.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string content(reinterpret_cast<const char*>(&length), sizeof length);
  return content + header + std::string(data_bytes, '\1');
}

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

SafetensorsFile read(const std::string& content) {
  const TemporaryDirectory directory;
  write_file_atomically(directory.path() / "x.safetensors", content);
  return read_safetensors(directory.path() / "x.safetensors");
}

TEST(Safetensors, DataAtAnyAddressIsRead) {
  // The header's length is odd, so no element of `x` stands at a multiple of its size.
  const SafetensorsFile file = read(file_of(R"({"x":)" + tensor("I32", "[2]", "[0,8]") + "} ", 8));
  EXPECT_TRUE(at::equal(file.tensors.at("x"), at::full({2}, 0x01010101, at::kInt)));
}

struct HostileFile {
  const char* name;
  std::string content;
  const char* complaint;
};

class Hostile : public ::testing::TestWithParam<HostileFile> {};

INSTANTIATE_TEST_SUITE_P(
    Safetensors, Hostile,
    ::testing::Values(
        HostileFile{"Empty", "", "at least 8 bytes; got 0"}, HostileFile{"Short", "1234567", "at least 8 bytes; got 7"},
        HostileFile{"EndlessHeader", std::string(16, '\xff'), "at most 100000000 bytes"},
        HostileFile{"HeaderBeyondTheFile", std::string("\x10\0\0\0\0\0\0\0{}", 10), "inside the file; got 16 of 2"},
        HostileFile{"NoJson", file_of("{", 0), "must be JSON"},
        HostileFile{"NoUtf8", file_of("{\"\xff\":1}", 0), "must be JSON"},
        HostileFile{"NoObject", file_of("[]", 0), "must be a JSON object; got array"},
        HostileFile{"DeepNesting", file_of(R"({"x":[[[)" + std::string(100000, '['), 0), "must not nest deeper"},
        HostileFile{"NoTensor", file_of(R"({"x":1})", 0), "needs dtype, shape and two data_offsets; got 1 for x"},
        HostileFile{"OneOffset", file_of(R"({"x":)" + tensor("F32", "[1]", "[0]") + "}", 4), "two data_offsets"},
        HostileFile{"UnknownDtype", file_of(R"({"x":)" + tensor("F31", "[1]", "[0,4]") + "}", 4), "got F31"},
        HostileFile{"NegativeSize", file_of(R"({"x":)" + tensor("F32", "[-1]", "[0,4]") + "}", 4), "got -1 in x"},
        HostileFile{"FractionalSize", file_of(R"({"x":)" + tensor("F32", "[1.0]", "[0,4]") + "}", 4), "got 1.0 in x"},
        HostileFile{"OverflowingSize", file_of(R"({"x":)" + tensor("F32", "[4294967296,4294967296]", "[0,0]") + "}", 0),
                    "must fit in 64 bits"},
        HostileFile{"EmptyWithOverflowingStrides",
                    file_of(R"({"x":)" + tensor("F32", "[0,4294967296,4294967296]", "[0,0]") + "}", 0),
                    "must fit in 64 bits"},
        HostileFile{"OverflowingOffset",
                    file_of(R"({"x":)" + tensor("F32", "[1]", "[0,18446744073709551616]") + "}", 4), "whole numbers"},
        HostileFile{"BeyondTheData", file_of(R"({"x":)" + tensor("F32", "[2]", "[0,8]") + "}", 4),
                    "inside the 4 bytes of data; got [0,8]"},
        HostileFile{"Backwards", file_of(R"({"x":)" + tensor("F32", "[1]", "[4,0]") + "}", 4), "got [4,0]"},
        HostileFile{"WrongLength", file_of(R"({"x":)" + tensor("F32", "[1]", "[0,3]") + "}", 3),
                    "match its shape, 4 bytes; got [0,3]"},
        HostileFile{
            "Overlap",
            file_of(R"({"x":)" + tensor("U8", "[4]", "[0,4]") + R"(,"y":)" + tensor("U8", "[4]", "[2,6]") + "}", 6),
            "without gap or overlap; y should begin at byte 4, got 2"},
        HostileFile{
            "Gap",
            file_of(R"({"x":)" + tensor("U8", "[1]", "[0,1]") + R"(,"y":)" + tensor("U8", "[1]", "[2,3]") + "}", 3),
            "y should begin at byte 1, got 2"},
        HostileFile{"DataNobodyOwns", file_of(R"({"x":)" + tensor("U8", "[1]", "[0,1]") + "}", 5), "got 1 of 5 bytes"},
        HostileFile{
            "TwoOfOneName",
            file_of(R"({"x":)" + tensor("U8", "[1]", "[0,1]") + R"(,"x":)" + tensor("U8", "[1]", "[0,1]") + "}", 1),
            "got x twice"},
        HostileFile{"MetadataOfNumbers", file_of(R"({"__metadata__":{"a":1}})", 0), "must hold texts; got 1 for a"}),
    [](const auto& info) { return info.param.name; });

TEST_P(Hostile, IsRefusedWithItsReason) {
  EXPECT_THAT([] { read(GetParam().content); },
              Throws<Error>(AllOf(Property(&Error::code, ErrorCode::io),
                                  Property(&Error::what, HasSubstr(GetParam().complaint)),
                                  Property(&Error::what, HasSubstr("x.safetensors")))));
}

}  // namespace
}  // namespace comba::models
