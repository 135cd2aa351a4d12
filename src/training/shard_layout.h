#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace comba::training {

/// Elements [first, first + size) of one tensor, which are elements [offset, offset + size) of a shard.
struct ShardSlice {
  std::size_t tensor = 0;
  std::int64_t first = 0;
  std::int64_t size = 0;
  std::int64_t offset = 0;

  bool operator==(const ShardSlice&) const = default;
};

/// How the elements of some tensors, one tensor after the other without gaps, are cut into buckets of equal size, and
/// each bucket into one piece for each shard. Only the end of the last bucket is padding.
///
///     elements   | bucket 0                    | bucket 1                    | ...
///     shard      | 0       | 1       | 2       | 0       | 1       | 2       |
class ShardLayout {
 public:
  /// `sizes`: the number of elements of each tensor. `bucket_size`: elements of a bucket, or a few more; 0: one bucket.
  ShardLayout(std::vector<std::int64_t> sizes, int num_shards, std::int64_t bucket_size = 0);

  int num_shards() const { return num_shards_; }
  std::int64_t num_buckets() const { return num_buckets_; }
  std::int64_t bucket_size() const { return piece_size_ * num_shards_; }
  /// Elements of a shard's piece of a bucket.
  std::int64_t piece_size() const { return piece_size_; }
  /// Elements of a shard, padding included.
  std::int64_t shard_size() const { return num_buckets_ * piece_size_; }
  /// Elements of all buckets, padding included.
  std::int64_t size() const { return num_buckets_ * bucket_size(); }
  /// What lies in a shard, in order; nothing in one that is all padding.
  std::vector<ShardSlice> slices(int shard) const;
  /// Where a tensor begins.
  std::int64_t offset(std::size_t tensor) const { return offsets_[tensor]; }
  /// The buckets that hold a part of a tensor: [first, second).
  std::pair<std::int64_t, std::int64_t> buckets_of(std::size_t tensor) const;

 private:
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> offsets_;
  int num_shards_;
  std::int64_t num_buckets_ = 1;
  std::int64_t piece_size_ = 0;
};

}  // namespace comba::training
