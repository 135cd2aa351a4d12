#include "ablation/cell_progress.h"

namespace comba::ablation {
namespace {

using Json = nlohmann::ordered_json;

Json number(std::optional<double> value) { return value ? Json(*value) : Json(); }

std::optional<double> number(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<double>());
}

}  // namespace

Json to_json(const CellProgress& progress) {
  Json curve = Json::array();
  for (const CurvePoint& point : progress.curve) {
    curve.push_back({{"step", point.step}, {"loss", point.loss}, {"heldout_loss", number(point.heldout_loss)}});
  }
  return {{"step", progress.step},           {"seconds", progress.seconds},       {"diverged", progress.diverged},
          {"open_loss", progress.open_loss}, {"open_steps", progress.open_steps}, {"curve", curve}};
}

CellProgress progress_from_json(const Json& json) {
  CellProgress progress{.step = json.at("step").get<std::int64_t>(),
                        .seconds = json.at("seconds").get<double>(),
                        .diverged = json.at("diverged").get<bool>(),
                        .open_loss = json.at("open_loss").get<double>(),
                        .open_steps = json.at("open_steps").get<std::int64_t>()};
  for (const Json& point : json.at("curve")) {
    progress.curve.push_back({.step = point.at("step").get<std::int64_t>(),
                              .loss = point.at("loss").get<double>(),
                              .heldout_loss = number(point.at("heldout_loss"))});
  }
  return progress;
}

}  // namespace comba::ablation
