#include "training/shard_layout.h"

#include <algorithm>
#include <utility>

namespace comba::training {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

ShardLayout::ShardLayout(std::vector<std::int64_t> sizes, int num_shards, std::int64_t bucket_size)
    : sizes_(std::move(sizes)), num_shards_(num_shards) {
  std::int64_t total = 0;
  for (const std::int64_t size : sizes_) {
    offsets_.push_back(total);
    total += size;
  }
  if (bucket_size <= 0 || bucket_size > total) bucket_size = total;
  piece_size_ = ceil_div(bucket_size, num_shards);
  if (total > 0) num_buckets_ = ceil_div(total, piece_size_ * num_shards);
}

std::vector<ShardSlice> ShardLayout::slices(int shard) const {
  std::vector<ShardSlice> slices;
  std::size_t next = 0;  // tensors before it end before the bucket
  for (std::int64_t bucket = 0; bucket < num_buckets_; ++bucket) {
    const std::int64_t begin = bucket * bucket_size() + shard * piece_size_, end = begin + piece_size_;
    while (next < sizes_.size() && offsets_[next] + sizes_[next] <= begin) ++next;
    for (std::size_t i = next; i < sizes_.size() && offsets_[i] < end; ++i) {
      const std::int64_t first = std::max(begin, offsets_[i]), last = std::min(end, offsets_[i] + sizes_[i]);
      if (first >= last) continue;
      slices.push_back({.tensor = i,
                        .first = first - offsets_[i],
                        .size = last - first,
                        .offset = bucket * piece_size_ + first - begin});
    }
  }
  return slices;
}

std::pair<std::int64_t, std::int64_t> ShardLayout::buckets_of(std::size_t tensor) const {
  if (sizes_[tensor] == 0) return {0, 0};
  const std::int64_t begin = offsets_[tensor], end = begin + sizes_[tensor];
  return {begin / bucket_size(), ceil_div(end, bucket_size())};
}

}  // namespace comba::training
