#pragma once

#include <cstdint>
#include <vector>

namespace comba::generation {

/// Which texts have a state on the GPU, and where. Slots do not move; a step names those that take part.
class SlotTable {
 public:
  using Ticket = std::uint64_t;  ///< tells a text from the one that had its slot before

  struct Row {
    std::int64_t slot;
    Ticket ticket;
    bool operator==(const Row&) const = default;
  };

  /// Throws Error(invalid_argument) for less than one slot.
  explicit SlotTable(std::int64_t num_slots);

  bool is_full() const { return rows_.size() == static_cast<std::size_t>(num_slots_); }

  /// Takes the lowest free slot. Throws Error(invalid_argument) when there is none.
  Row join();
  /// Throws Error(invalid_argument) for a slot that nobody has.
  void leave(std::int64_t slot);
  /// Whether this text still has its slot.
  bool holds(const Row& row) const;

  /// The texts, in the order in which they came.
  const std::vector<Row>& rows() const { return rows_; }
  /// Changes with every join() and leave().
  std::uint64_t version() const { return version_; }

 private:
  std::int64_t num_slots_;
  std::vector<Row> rows_;
  Ticket next_ticket_ = 0;
  std::uint64_t version_ = 0;
};

}  // namespace comba::generation
