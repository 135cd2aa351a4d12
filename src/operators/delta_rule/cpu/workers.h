#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "comba/delta_rule.h"
#include "comba/parallel.h"
#include "operators/delta_rule/cpu/layout.h"
#include "operators/delta_rule/problem.h"

namespace comba::delta_rule::cpu {

/// The pieces forward and decode work on: each value head of each sequence, cut into slices of its columns when there
/// are fewer heads than threads. Columns are independent and summed alike in every slice, so the cut changes no bits.
struct Pieces {
  std::int64_t slices;  // of a head
  std::int64_t width;   // columns of a slice; the last may have fewer
  std::int64_t count;   // N HV slices

  explicit Pieces(const Problem& x) {
    const std::int64_t heads = std::max<std::int64_t>(x.N * x.HV, 1);
    const std::int64_t wanted = (num_threads() + heads - 1) / heads;
    width = round_up((x.V + wanted - 1) / wanted, kAlign);
    slices = (x.V + width - 1) / width;
    count = x.N * x.HV * slices;
  }
};

/// Bytes of scratch memory one worker needs.
template <class Scratch>
std::int64_t scratch_bytes(const Problem& x) {
  Arena counter;
  Scratch::carve(x, counter);
  return counter.bytes();
}

/// Bytes for as many workers as can be busy with `items` items.
template <class Scratch>
std::int64_t workers_bytes(const Problem& x, std::int64_t items) {
  return std::min(items, static_cast<std::int64_t>(num_threads())) * scratch_bytes<Scratch>(x);
}

/// Runs work(worker, workers, scratch) on up to num_threads() workers, as many as have items and memory.
template <class Scratch, class Work>
void run_workers(const Problem& x, std::int64_t items, Workspace workspace, const Work& work) {
  const std::int64_t bytes = scratch_bytes<Scratch>(x);
  const std::int64_t workers = std::min({items, workspace.bytes / bytes, static_cast<std::int64_t>(num_threads())});
  parallel_for(workers, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t worker = begin; worker < end; ++worker) {
      Arena arena(static_cast<char*>(workspace.data) + worker * bytes);
      Scratch scratch = Scratch::carve(x, arena);
      work(worker, workers, scratch);
    }
  });
}

/// Runs work(item, scratch) for items [0, count), each taken by the first worker that is free: for items of different
/// length. No result may depend on who takes one.
template <class Scratch, class Work>
void run_items(const Problem& x, std::int64_t count, Workspace workspace, const Work& work) {
  std::atomic<std::int64_t> next{0};
  run_workers<Scratch>(x, count, workspace, [&](std::int64_t, std::int64_t, Scratch& scratch) {
    for (std::int64_t item = next++; item < count; item = next++) work(item, scratch);
  });
}

}  // namespace comba::delta_rule::cpu
