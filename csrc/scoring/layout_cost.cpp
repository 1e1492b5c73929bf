#include "scoring/layout_cost.h"

#include "kernels/dispatch.h"

namespace onceover {

double screening_cost(size_t slots, size_t coordinates) noexcept {
  return static_cast<double>(slots * coordinates) / 64 * 1.1;
}

double coding_cost(size_t dims, size_t rank2, Representation representation) noexcept {
  const auto d = static_cast<double>(dims), r = static_cast<double>(rank2);
  return d * 1.5 + (representation == Representation::kRank ? 2 * d * r / 64 : 0) + 6 * r;
}

double hit_cost(const SearchIndex& index, const SearchStats& stats) noexcept {
  return static_cast<double>(stats.hit_blocks) / static_cast<double>(stats.queries) * 10 *
         static_cast<double>(index.rank1);
}

double scan_cost(size_t rows, size_t dims) noexcept {
  return static_cast<double>(rows) * (static_cast<double>(dims) + 16) / 14;
}

double modelled_cost(const SearchIndex& index, const SearchStats& stats) noexcept {
  const auto per_query = [&](uint64_t count) {
    return static_cast<double>(count) / static_cast<double>(stats.queries);
  };
  const double refining = per_query(stats.refined_rows) * (40 + static_cast<double>(index.rank2) / 4);
  const double measuring =
      per_query(stats.measured_rows + 2 * stats.exact_rows) * (150 + static_cast<double>(index.dims) / 2);
  const double scanning = per_query(stats.scanned_queries) * scan_cost(index.row_count, index.dims);
  return coding_cost(index.dims, index.rank2, index.representation) + screening_cost(index.slot_count, index.screened) +
         hit_cost(index, stats) + refining + measuring + scanning;
}

KernelTable counting_kernels(const KernelTable& table) {
  const KernelTable& scalar = kernels_named("scalar");
  KernelTable counting = table.counting != nullptr ? *table.counting : table;
  counting.scan_f32 = scalar.scan_f32;
  counting.along_axes_f32 = scalar.along_axes_f32;
  return counting;
}

}  // namespace onceover
