#include "training/shard_layout.h"

#include <algorithm>
#include <utility>

namespace comba::training {

ShardLayout::ShardLayout(std::vector<std::int64_t> sizes, int num_shards)
    : sizes_(std::move(sizes)), num_shards_(num_shards) {
  std::int64_t total = 0;
  for (const std::int64_t size : sizes_) {
    offsets_.push_back(total);
    total += size;
  }
  shard_size_ = (total + num_shards - 1) / num_shards;
}

std::vector<ShardSlice> ShardLayout::slices(int shard) const {
  const std::int64_t begin = shard * shard_size_, end = begin + shard_size_;
  std::vector<ShardSlice> slices;
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    const std::int64_t first = std::max(begin, offsets_[i]), last = std::min(end, offsets_[i] + sizes_[i]);
    if (first < last) {
      slices.push_back({.tensor = i, .first = first - offsets_[i], .size = last - first, .offset = first - begin});
    }
  }
  return slices;
}

}  // namespace comba::training
