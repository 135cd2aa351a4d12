// The comparison with reference files must be able to fail.

#include <gmock/gmock.h>

#include <limits>

#include "base/file.h"
#include "models/fixtures/comparison.h"
#include "models/safetensors.h"
#include "support/temporary_directory.h"

namespace comba::fixtures {
namespace {

using comba::testing::TemporaryDirectory;
using ::testing::HasSubstr;

const std::filesystem::path kFixtures = std::filesystem::path(COMBA_SOURCE_DIR) / "tests" / "fixtures";

std::vector<Result> run(const std::filesystem::path& directory) {
  return run_fixtures(directory, [](const Result&) {});
}

/// The result of a reference file in which the tensor `name` was changed.
Result run_changed(const std::filesystem::path& file, const std::string& name, double factor) {
  const TemporaryDirectory directory;
  models::SafetensorsFile content = models::read_safetensors(kFixtures / file);
  content.tensors.at(name) = content.tensors.at(name) * factor;
  models::write_safetensors(directory.path() / file.filename(), content.tensors, content.metadata);
  return run(directory.path()).at(0);
}

TEST(Fixtures, AChangedResultOrInputFails) {
  const std::filesystem::path operator_file = "float64/comba_paper_t70_d32.safetensors";
  EXPECT_FALSE(run_changed(operator_file, "o", 1).failed());
  for (const char* name : {"o", "final_state", "dk", "dA_log", "ddecay", "dD"}) {
    EXPECT_TRUE(run_changed(operator_file, name, 1.01).failed()) << name;
  }
  EXPECT_TRUE(run_changed(operator_file, "v", 1.01).failed());
  EXPECT_TRUE(run_changed("fla/layer_comba.safetensors", "y", 1.0001).failed());
  EXPECT_TRUE(run_changed("fla/layer_comba.safetensors", "y40_recurrent", 1.0001).failed());
}

TEST(Fixtures, NanFails) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Result result = run_changed("float64/comba_paper_t70_d32.safetensors", "o", nan);
  EXPECT_TRUE(result.failed());
  EXPECT_THAT(result.comparisons.at(0).detail, HasSubstr("expected nan"));
}

TEST(Fixtures, WhatCannotBeComparedIsNotPassedOver) {
  const TemporaryDirectory directory;
  models::write_safetensors(directory.path() / "a.safetensors", {{"something", at::zeros({1})}});
  write_file_atomically(directory.path() / "b.safetensors", "no tensors");
  std::filesystem::create_directory(directory.path() / "c");
  write_file_atomically(directory.path() / "c" / "config.json", R"({"model_type": "samba"})");
  std::filesystem::create_directory(directory.path() / "d");
  write_file_atomically(directory.path() / "d" / "config.json", R"({"model_type": "comba"})");

  const std::vector<Result> results = run(directory.path());
  ASSERT_EQ(results.size(), 4u);
  EXPECT_THAT(results[0].failure, HasSubstr("got neither"));
  EXPECT_THAT(results[1].failure, HasSubstr("b.safetensors"));
  EXPECT_FALSE(results[2].failed());
  EXPECT_THAT(results[2].not_run, HasSubstr("samba"));
  EXPECT_THAT(results[3].failure, HasSubstr("hidden_size is missing"));
}

TEST(Fixtures, DifferentIdsFail) {
  Comparer comparer;
  comparer.compare_ids("ids", at::full({3}, 1, at::kLong), at::full({3}, 1, at::kLong));
  comparer.compare_ids("ids", at::full({3}, 1, at::kLong), at::full({3}, 2, at::kLong));
  comparer.compare_ids("ids", at::full({2}, 1, at::kLong), at::full({3}, 1, at::kLong));
  EXPECT_TRUE(comparer.comparisons()[0].holds());
  EXPECT_FALSE(comparer.comparisons()[1].holds());
  EXPECT_FALSE(comparer.comparisons()[2].holds());
}

}  // namespace
}  // namespace comba::fixtures
