#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace comba::data {

/// Finds which of some texts a text begins with.
class PieceTrie {
 public:
  using Entry = std::pair<std::string, std::int32_t>;  ///< a text, not empty, and its id, at least 0

  PieceTrie() = default;
  explicit PieceTrie(std::vector<Entry> entries);

  bool empty() const { return nodes_.size() <= 1; }

  /// Calls visit(length, id) for each entry that `text` begins with, the shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    if (empty()) return;
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (!descend(static_cast<unsigned char>(text[i]), node)) return;
      if (nodes_[node].id >= 0) visit(i + 1, nodes_[node].id);
    }
  }

  /// Id of exactly this text, or -1.
  std::int32_t find(std::string_view text) const;

 private:
  struct Node {
    std::uint32_t first_child = 0;
    std::uint16_t num_children = 0;
    unsigned char byte = 0;  // on the way from its parent
    std::int32_t id = -1;
  };

  bool descend(unsigned char byte, std::uint32_t& node) const {
    const Node& parent = nodes_[node];
    std::uint32_t low = parent.first_child, high = low + parent.num_children;
    while (low < high) {
      const std::uint32_t middle = (low + high) / 2;
      if (nodes_[middle].byte < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == parent.first_child + parent.num_children || nodes_[low].byte != byte) return false;
    node = low;
    return true;
  }

  std::vector<Node> nodes_;  // the root, then the children of each node side by side, by byte
};

}  // namespace comba::data
