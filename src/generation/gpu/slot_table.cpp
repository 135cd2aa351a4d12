#include "generation/gpu/slot_table.h"

#include <algorithm>

#include "base/message.h"

namespace comba::generation {

SlotTable::SlotTable(std::int64_t num_slots) : num_slots_(num_slots) {
  require(num_slots > 0, ErrorCode::invalid_argument, "[SlotTable] needs at least 1 slot; got ", num_slots);
}

SlotTable::Row SlotTable::join() {
  require(!is_full(), ErrorCode::invalid_argument, "[SlotTable] a text needs a free slot; all ", num_slots_,
          " are taken");
  std::int64_t slot = 0;
  while (std::ranges::find(rows_, slot, &Row::slot) != rows_.end()) ++slot;
  ++version_;
  return rows_.emplace_back(Row{slot, next_ticket_++});
}

void SlotTable::leave(std::int64_t slot) {
  const auto found = std::ranges::find(rows_, slot, &Row::slot);
  require(found != rows_.end(), ErrorCode::invalid_argument, "[SlotTable] a text can leave its own slot; nobody has ",
          slot);
  rows_.erase(found);
  ++version_;
}

bool SlotTable::holds(const Row& row) const { return std::ranges::find(rows_, row) != rows_.end(); }

}  // namespace comba::generation
