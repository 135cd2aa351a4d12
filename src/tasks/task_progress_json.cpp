#include "tasks/task_progress_json.h"

#include <cmath>
#include <limits>

namespace comba::tasks {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no number for what is not finite: null.
double number(const Json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

}  // namespace

Json to_json(const TaskProgress& progress) {
  Json epochs = Json::array(), slices = Json::array();
  for (const EpochRecord& epoch : progress.epochs) {
    epochs.push_back({{"learning_rate", epoch.learning_rate}, {"loss", epoch.loss}, {"accuracy", epoch.accuracy}});
  }
  for (const SliceAccuracy& slice : progress.slices) {
    slices.push_back(
        {{"slice", slice.slice}, {"length", slice.length}, {"examples", slice.examples}, {"accuracy", slice.accuracy}});
  }
  return {{"step", progress.step},
          {"seconds", progress.seconds},
          {"diverged", progress.diverged},
          {"slices", slices},
          {"epochs", epochs}};
}

TaskProgress progress_from_json(const Json& json) {
  TaskProgress progress{.step = json.at("step").get<std::int64_t>(),
                        .seconds = json.at("seconds").get<double>(),
                        .diverged = json.at("diverged").get<bool>(),
                        .epochs = {},
                        .slices = {}};
  for (const Json& epoch : json.at("epochs")) {
    progress.epochs.push_back({.learning_rate = epoch.at("learning_rate").get<double>(),
                               .loss = number(epoch.at("loss")),
                               .accuracy = epoch.at("accuracy").get<double>()});
  }
  for (const Json& slice : json.at("slices")) {
    progress.slices.push_back({.slice = slice.at("slice").get<std::int64_t>(),
                               .length = slice.at("length").get<std::int64_t>(),
                               .examples = slice.at("examples").get<std::int64_t>(),
                               .accuracy = slice.at("accuracy").get<double>()});
  }
  return progress;
}

}  // namespace comba::tasks
