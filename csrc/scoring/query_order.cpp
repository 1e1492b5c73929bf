#include "scoring/query_order.h"

#include <algorithm>

namespace onceover {
namespace {

void split(OrderedQuery* begin, size_t size) {
  while (size > kQueryLanes) {
    size_t axis = 0;
    float widest = -1;
    for (size_t a = 0; a < kOrderAxes; ++a) {
      float low = begin[0].along[a], high = low;
      for (size_t i = 1; i < size; ++i) {
        low = std::min(low, begin[i].along[a]);
        high = std::max(high, begin[i].along[a]);
      }
      if (high - low > widest) widest = high - low, axis = a;
    }
    const size_t left = (size / kQueryLanes + 1) / 2 * kQueryLanes;  // whole groups to the left
    if (left >= size) return;
    std::nth_element(begin, begin + left, begin + size, [axis](const OrderedQuery& a, const OrderedQuery& b) {
      return a.along[axis] < b.along[axis] || (a.along[axis] == b.along[axis] && a.query < b.query);
    });
    split(begin, left);
    begin += left;
    size -= left;
  }
}

}  // namespace

void order_queries(const SearchIndex& index, MatrixView<const float> queries, size_t first, size_t count,
                   const KernelTable& table, OrderedQuery* buffer, uint32_t* order) noexcept {
  for (size_t i = 0; i < count; ++i) {
    OrderedQuery& each = buffer[i];
    each.query = static_cast<uint32_t>(first + i);
    table.along_axes_f32(queries.row(first + i), index.axes, index.padded_dims(), index.dims, each.along);
    for (float& value : each.along) value = value >= -1e30f && value <= 1e30f ? value : 0;  // NaN has no order
  }
  split(buffer, count);
  for (size_t i = 0; i < count; ++i) order[i] = buffer[i].query;
}

}  // namespace onceover
