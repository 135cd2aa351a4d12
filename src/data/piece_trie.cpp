#include "data/piece_trie.h"

#include <algorithm>
#include <deque>

namespace comba::data {

PieceTrie::PieceTrie(std::vector<Entry> entries) : nodes_(1) {
  std::sort(entries.begin(), entries.end());
  // Entries [begin, end) share their first `depth` bytes, which lead to `node`.
  struct Range {
    std::size_t begin, end, depth;
    std::uint32_t node;
  };
  std::deque<Range> pending = {{0, entries.size(), 0, 0}};
  while (!pending.empty()) {
    const Range range = pending.front();
    pending.pop_front();
    std::size_t begin = range.begin;
    for (; begin < range.end && entries[begin].first.size() == range.depth; ++begin) {
      nodes_[range.node].id = entries[begin].second;
    }
    nodes_[range.node].first_child = static_cast<std::uint32_t>(nodes_.size());
    while (begin < range.end) {
      const auto byte = static_cast<unsigned char>(entries[begin].first[range.depth]);
      std::size_t end = begin + 1;
      while (end < range.end && static_cast<unsigned char>(entries[end].first[range.depth]) == byte) ++end;
      pending.push_back({begin, end, range.depth + 1, static_cast<std::uint32_t>(nodes_.size())});
      nodes_.emplace_back();
      nodes_.back().byte = byte;
      ++nodes_[range.node].num_children;
      begin = end;
    }
  }
}

std::int32_t PieceTrie::find(std::string_view text) const {
  if (empty()) return -1;
  std::uint32_t node = 0;
  for (const char c : text) {
    if (!descend(static_cast<unsigned char>(c), node)) return -1;
  }
  return nodes_[node].id;
}

}  // namespace comba::data
