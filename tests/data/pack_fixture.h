#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "comba/error.h"
#include "data/pack.h"
#include "data/token_dataset.h"
#include "support/temporary_directory.h"

namespace comba::data {

namespace fs = std::filesystem;

/// Files to pack, and what has become of them.
class PackTest : public ::testing::Test {
 protected:
  void write(const std::string& relative_path, const std::string& content) {
    const fs::path path = input() / relative_path;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
  }

  fs::path input() const { return directory_.path() / "input"; }
  fs::path output() const { return directory_.path() / "output"; }
  PackOptions options() const { return {.inputs = {input()}, .output = output()}; }

  std::vector<std::string> paths(Split split) const {
    const TokenDataset dataset = TokenDataset::open(output(), split);
    std::vector<std::string> paths;
    for (std::int64_t i = 0; i < dataset.num_documents(); ++i) paths.push_back(dataset.document(i).path);
    return paths;
  }

  std::string text(Split split, std::int64_t document_index) const {
    const TokenDataset dataset = TokenDataset::open(output(), split);
    const Document document = dataset.document(document_index);
    std::vector<std::int64_t> ids(document.num_tokens);
    dataset.read_tokens(document.first_token, ids);
    EXPECT_EQ(ids.front(), dataset.tokenizer().bos());
    return dataset.tokenizer().decode(ids);
  }

  /// Everything in the temporary directory but the input: what a pack left behind.
  std::vector<std::string> leftovers() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      if (entry.path() != input()) names.push_back(entry.path().filename().string());
    }
    return names;
  }

  void expect_failure(const PackOptions& options, ErrorCode code, const std::string& message) const {
    try {
      pack(options);
      ADD_FAILURE() << "packed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_THAT(error.what(), ::testing::HasSubstr(message));
    }
  }

  testing::TemporaryDirectory directory_;
};

}  // namespace comba::data
