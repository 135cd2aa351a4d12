#include "distributed/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "comba/error.h"

namespace comba::distributed {
namespace {

using Variables = std::map<std::string, std::string>;

Launch read(const Variables& variables) {
  return read_launch([&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"MASTER_ADDR", "node7"},
                             {"MASTER_PORT", "29501"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables kSlurm = {{"SLURM_PROCID", "3"},
                          {"SLURM_NTASKS", "4"},
                          {"SLURM_LOCALID", "1"},
                          {"MASTER_ADDR", "node7"},
                          {"MASTER_PORT", "7"}};

Variables changed(Variables variables, const std::string& name, std::optional<std::string> value) {
  variables.erase(name);
  if (value) variables[name] = *value;
  return variables;
}

void expect_error(const Variables& variables, const std::string& text) {
  try {
    read(variables);
    ADD_FAILURE() << "no error; expected " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_THAT(error.what(), ::testing::HasSubstr(text));
  }
}

TEST(Launch, IsOneProcessWhereNothingIsSaid) {
  EXPECT_EQ(read({}).size, 1);
  EXPECT_EQ(read({{"MASTER_ADDR", "node7"}, {"MASTER_PORT", "29501"}}).size, 1);
  EXPECT_EQ(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}}).size, 1);
  EXPECT_EQ(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).size, 1);
}

TEST(Launch, ReadsWhatTorchrunSays) {
  const Launch launch = read(kTorchrun);
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.address, "node7");
  EXPECT_EQ(launch.port, 29501);
  EXPECT_EQ(launch.attempt, 2);
  EXPECT_TRUE(launch.launcher_has_store);
}

TEST(Launch, ReadsWhatSlurmSays) {
  const Launch launch = read(kSlurm);
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.address, "node7");
  EXPECT_EQ(launch.port, 7);
  EXPECT_FALSE(launch.launcher_has_store);
}

TEST(Launch, TorchrunGoesBeforeSlurm) {
  Variables both = kTorchrun;
  both.insert({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "9"}});
  EXPECT_EQ(read(both).size, 4);
}

TEST(Launch, NamesWhatIsMissing) {
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    expect_error(changed(kTorchrun, name, std::nullopt), std::string("variable ") + name + " must be set");
  }
  for (const char* name : {"SLURM_PROCID", "SLURM_NTASKS", "MASTER_ADDR", "MASTER_PORT"}) {
    expect_error(changed(kSlurm, name, std::nullopt), std::string("variable ") + name + " must be set");
  }
}

TEST(Launch, NamesWhatMakesNoSense) {
  expect_error(changed(kTorchrun, "RANK", "4"), "RANK must be a number in [0, 3]; got '4'");
  expect_error(changed(kTorchrun, "RANK", "-1"), "RANK must be a number in [0, 3]; got '-1'");
  expect_error(changed(kTorchrun, "WORLD_SIZE", "4x"), "WORLD_SIZE must be a number");
  expect_error(changed(kTorchrun, "WORLD_SIZE", "0"), "got '0'");
  expect_error(changed(kTorchrun, "LOCAL_RANK", "four"), "LOCAL_RANK must be a number");
  expect_error(changed(kTorchrun, "MASTER_PORT", "70000"), "MASTER_PORT must be a number in [1, 65535]; got '70000'");
  expect_error(changed(kSlurm, "SLURM_PROCID", ""), "SLURM_PROCID must be a number");
}

}  // namespace
}  // namespace comba::distributed
