#pragma once

#include <cstddef>
#include <cstdint>
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

/// How the elements of some tensors, one tensor after the other, are cut into shards of equal size. Only the end of the
/// last ones is padding. A shard has at most one slice of a tensor.
class ShardLayout {
 public:
  /// `sizes`: the number of elements of each tensor.
  ShardLayout(std::vector<std::int64_t> sizes, int num_shards);

  int num_shards() const { return num_shards_; }
  /// Elements of a shard, padding included.
  std::int64_t shard_size() const { return shard_size_; }
  /// What lies in a shard, in order; nothing in one that is all padding.
  std::vector<ShardSlice> slices(int shard) const;
  /// Where a tensor begins when the shards are put together again.
  std::int64_t offset(std::size_t tensor) const { return offsets_[tensor]; }

 private:
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> offsets_;
  int num_shards_;
  std::int64_t shard_size_;
};

}  // namespace comba::training
