#include "libtorch/columns.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace comba {
namespace {

// To autograd a view would hold on to the tensor it was made from, and with it to the memory.
using BelowAutograd = at::AutoDispatchBelowADInplaceOrView;

int64_t sum_of(at::IntArrayRef sizes) { return std::accumulate(sizes.begin(), sizes.end(), int64_t{0}); }

/// Whether b is of the memory behind a: of one storage, dtype and rank, beginning where `count` elements of a's end.
bool lies_behind(const at::Tensor& b, const at::Tensor& a, int64_t count) {
  return b.defined() && b.dim() == a.dim() && b.scalar_type() == a.scalar_type() && b.is_alias_of(a) &&
         b.storage_offset() == a.storage_offset() + count;
}

/// Elements from one row to the next of a tensor [..., n] whose rows are evenly spaced; 0 where they are not.
int64_t row_pitch(const at::Tensor& x) {
  if (x.dim() < 2 || (x.size(-1) > 1 && x.stride(-1) != 1)) return 0;
  int64_t pitch = 0, expected = 0;
  for (int64_t i = x.dim() - 2; i >= 0; --i) {
    if (x.size(i) == 1) continue;
    if (pitch == 0) {
      pitch = x.stride(i);
    } else if (x.stride(i) != expected) {
      return 0;
    }
    expected = x.stride(i) * x.size(i);
  }
  return pitch;
}

bool are_columns_of_one(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t i = 0; i + 1 < a.dim(); ++i) {
    if (a.size(i) != b.size(i) || (a.size(i) > 1 && a.stride(i) != b.stride(i))) return false;
  }
  return true;
}

/// How many of the tensors, from the first on, are neighbours.
std::size_t num_neighbours(at::TensorList tensors) {
  if (tensors.empty() || !tensors[0].defined() || row_pitch(tensors[0]) == 0) return 0;
  std::size_t count = 1;
  while (count < tensors.size() && lies_behind(tensors[count], tensors[count - 1], tensors[count - 1].size(-1)) &&
         row_pitch(tensors[count]) != 0 && are_columns_of_one(tensors[count - 1], tensors[count])) {
    ++count;
  }
  return count;
}

at::Tensor widened(const at::Tensor& x, int64_t width) {
  const BelowAutograd guard;
  std::vector<int64_t> sizes = x.sizes().vec(), strides = x.strides().vec();
  sizes.back() = width;
  strides.back() = 1;
  return x.as_strided(sizes, strides, x.storage_offset());
}

/// Whether the rows of x could be `width` wide: in memory that nobody but `holders` tensors has.
bool has_room(const at::Tensor& x, int64_t width, std::size_t holders) {
  const int64_t pitch = row_pitch(x), rows = x.numel() / std::max<int64_t>(x.size(-1), 1);
  const int64_t capacity = static_cast<int64_t>(x.storage().nbytes()) / x.element_size();
  return pitch >= width && x.storage().use_count() == holders &&
         x.storage_offset() + (rows - 1) * pitch + width <= capacity;
}

}  // namespace

at::Tensor joined_columns(at::TensorList tensors) {
  if (num_neighbours(tensors) != tensors.size() || tensors.empty()) return {};
  int64_t width = 0;
  for (const at::Tensor& tensor : tensors) width += tensor.size(-1);
  if (row_pitch(tensors[0]) < width) return {};
  return widened(tensors[0], width);
}

at::Tensor joined_rows(at::TensorList tensors) {
  if (tensors.empty() || !tensors[0].defined() || !tensors[0].is_contiguous() || tensors[0].dim() < 1) return {};
  int64_t height = tensors[0].size(0);
  for (std::size_t i = 1; i < tensors.size(); ++i) {
    const at::Tensor &a = tensors[i - 1], &b = tensors[i];
    if (!lies_behind(b, a, a.numel()) || !b.is_contiguous() || a.sizes().slice(1) != b.sizes().slice(1)) return {};
    height += b.size(0);
  }
  std::vector<int64_t> sizes = tensors[0].sizes().vec();
  sizes[0] = height;
  const BelowAutograd guard;
  return tensors[0].as_strided(sizes, tensors[0].strides(), tensors[0].storage_offset());
}

std::vector<at::Tensor> cut_columns(const at::Tensor& joined, at::IntArrayRef widths) {
  const BelowAutograd guard;
  return joined.split_with_sizes(widths, -1);
}

std::vector<at::Tensor> cut_rows(const at::Tensor& joined, at::IntArrayRef heights) {
  const BelowAutograd guard;
  return joined.split_with_sizes(heights, 0);
}

std::vector<at::Tensor> empty_rows(at::IntArrayRef heights, at::IntArrayRef sizes_of_a_row,
                                   const at::TensorOptions& options) {
  std::vector<int64_t> sizes = {sum_of(heights)};
  sizes.insert(sizes.end(), sizes_of_a_row.begin(), sizes_of_a_row.end());
  const BelowAutograd guard;
  return cut_rows(at::empty(sizes, options), heights);
}

at::Tensor empty_gradient_with_room(const at::Tensor& x) {
  const BelowAutograd guard;
  const int64_t pitch = row_pitch(x), rows = x.numel() / std::max<int64_t>(x.size(-1), 1);
  if (pitch <= x.size(-1) || x.storage_offset() % pitch != 0) return at::empty(x.sizes(), x.options());
  std::vector<int64_t> strides = x.strides().vec();
  strides.back() = 1;
  return at::empty({rows, pitch}, x.options()).as_strided(x.sizes(), strides, 0);
}

at::Tensor gather_columns(at::TensorList gradients, at::IntArrayRef widths) {
  const BelowAutograd guard;
  if (at::Tensor joined = joined_columns(gradients); joined.defined()) return joined;
  const int64_t width = sum_of(widths);
  const std::size_t neighbours = num_neighbours(gradients);
  const bool fits = neighbours > 0 && has_room(gradients[0], width, neighbours);
  at::Tensor all;
  if (fits) {
    all = widened(gradients[0], width);
  } else {
    const auto given = std::find_if(gradients.begin(), gradients.end(), std::mem_fn(&at::Tensor::defined));
    std::vector<int64_t> sizes = given->sizes().vec();
    sizes.back() = width;
    all = at::empty(sizes, given->options());
  }
  const std::vector<at::Tensor> columns = cut_columns(all, widths);
  for (std::size_t i = fits ? neighbours : 0; i < gradients.size(); ++i) {
    const at::Tensor& column = columns[i];
    gradients[i].defined() ? column.copy_(gradients[i]) : column.zero_();
  }
  return all;
}

}  // namespace comba
