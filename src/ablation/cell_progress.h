#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "ablation/heldout_text.h"

namespace comba::ablation {

/// A place of a learning curve.
struct CurvePoint {
  std::int64_t step = 0;  ///< completed steps
  double loss = 0;        ///< nats a token, mean over the steps since the point before
  std::optional<double> heldout_loss = {};
};

/// What is known of a cell, on its way or at its end.
struct CellProgress {
  std::int64_t step = 0;  ///< completed steps
  double seconds = 0;     ///< of training; evaluation does not count
  bool diverged = false;  ///< loss or gradient were not finite
  std::vector<CurvePoint> curve = {};
  double open_loss = 0;  ///< sum over the steps since the last point
  std::int64_t open_steps = 0;
  std::optional<HeldoutScore> heldout = {};  ///< at the end; absent where it diverged
};

/// One object, in which open_loss and open_steps stay, so that a cell goes on from it; and back.
nlohmann::ordered_json to_json(const CellProgress& progress);
CellProgress progress_from_json(const nlohmann::ordered_json& json);

}  // namespace comba::ablation
