#include "base/message.h"

namespace comba {

std::string describe(const ConstView& view) {
  if (!view.given()) return "absent";
  std::ostringstream text;
  text << '[';
  for (int i = 0; i < view.rank; ++i) text << (i > 0 ? ", " : "") << view.sizes[i];
  text << "] " << name_of(view.dtype);
  return text.str();
}

}  // namespace comba
