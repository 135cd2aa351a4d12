#include "base/message.h"

namespace comba {

std::ostream& operator<<(std::ostream& stream, const Description& description) {
  const ConstView& view = description.view;
  if (!view.given()) return stream << "absent";
  stream << '[';
  for (int i = 0; i < view.rank; ++i) stream << (i > 0 ? ", " : "") << view.sizes[i];
  return stream << "] " << name_of(view.dtype);
}

}  // namespace comba
