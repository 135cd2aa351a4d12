#pragma once

#include <cstdlib>
#include <cstring>

/// What is being compared on a GPU. This file goes when it has been.
namespace comba::model_step {

/// From the environment: COMBA_STEP="split=128,lean=1,..".
struct Tuning {
  int split = 0;     ///< steps of at least so many rows go in parts side by side; 0: none do
  int parts = 2;     ///< how many, at most 4
  int lean = 1;      ///< parts: products that fit beside the states
  int bulk = 1;      ///< states by the copy engine
  int blocks = 2;    ///< of the states, on an SM
  int stages = 3;    ///< 3 or 5 (one block alone)
  int late = 0;      ///< what follows the states begins when they are about to end
  int ordered = 0;   ///< parts: never the states of two
  int stagger = 1;   ///< parts: first states one after the other
  int priority = 0;  ///< products before states
  int prefetch = 0;  ///< parts of the next states that the first product brings into the L2 cache
  int ahead = 0;     ///< weights of a layer into the L2 cache while the states go through
  int carve = 1;     ///< every kernel asks for all shared memory an SM can have, so that any two can share one; 2: each
                     ///< launch does
  int pdl = 1;       ///< kernels begin before the one before them has ended
  int at_once = 0;   ///< products finish 8 rows of a column at once
  int narrow = 0;    ///< up to 64 rows: small tiles for matrices of few rows

  static Tuning get() {
    Tuning t;
    const char* const text = std::getenv("COMBA_STEP");
    if (text == nullptr) return t;
    const auto read = [&](const char* name, int& value) {
      const std::size_t length = std::strlen(name);
      for (const char* at = text; at != nullptr; at = std::strchr(at, ',')) {
        if (*at == ',') ++at;
        if (std::strncmp(at, name, length) == 0 && at[length] == '=') value = std::atoi(at + length + 1);
      }
    };
    read("split", t.split), read("parts", t.parts), read("lean", t.lean), read("bulk", t.bulk),
        read("blocks", t.blocks);
    read("stages", t.stages), read("late", t.late), read("ordered", t.ordered), read("stagger", t.stagger);
    read("priority", t.priority), read("prefetch", t.prefetch), read("ahead", t.ahead), read("narrow", t.narrow);
    read("carve", t.carve), read("at_once", t.at_once), read("pdl", t.pdl);
    return t;
  }
};

}  // namespace comba::model_step
