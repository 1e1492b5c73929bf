#include "scoring/build.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/finite.h"
#include "scoring/bounds.h"
#include "scoring/encode.h"
#include "scoring/layout_cost.h"
#include "scoring/projection.h"
#include "scoring/row_order.h"
#include "scoring/search.h"

namespace onceover {
namespace {

constexpr size_t kFewestRows = 64;               // below, a scan is as fast as anything
constexpr size_t kLargestRankDims = kMostRank2;  // beyond, PCA costs more than it is worth here
constexpr size_t kTrialQueries = 192;
constexpr size_t kOrderDirections = 16;  // leading directions that rows are ordered by

struct Layout {
  Representation representation;
  size_t rank1, rank2, screened;
};
constexpr Layout kOnlyScan = {Representation::kScan, 0, 0, 0};

// What is worth trying for D dims. Screening costs rank1 per row; the second bound costs rank2 per survivor.
std::vector<Layout> candidate_layouts(size_t dims) {
  const size_t padded = (dims + kTileDims - 1) / kTileDims * kTileDims;
  std::vector<Layout> layouts;
  if (dims <= kLargestRankDims) {
    const size_t most = std::min(padded, (dims + 1) / kQueryLanes * kQueryLanes);  // rank2 − 1 directions must exist
    for (const auto& [rank1, rank2] : {std::pair<size_t, size_t>{64, 128}, {128, 128}, {128, 256}}) {
      if (rank1 >= padded || rank1 > most) continue;
      layouts.push_back({Representation::kRank, rank1, std::min(rank2, most), kDefaultScreened});
    }
  }
  if (padded <= kMostRank1) layouts.push_back({Representation::kFull, padded, padded, padded});
  return layouts;
}

class Builder {
 public:
  Builder(MatrixView<const float> rows, const BuildOptions& options, const KernelTable& table, Memory& memory)
      : rows_(rows),
        options_(options),
        table_(table),
        counting_(counting_kernels(table)),
        memory_(memory),
        mean_(memory, padded(), "mean row") {}

  Buffer<uint8_t> build() {
    rows_hash_ = hash_rows(rows_);
    find_copies();
    find_mean();
    if (unique_.empty()) return make(kOnlyScan);
    if (options_.forced) return make({options_.representation, options_.rank1, options_.rank2, options_.screened});
    if (!safe_scale_ || unique_.size() < kFewestRows) return make(kOnlyScan);
    return best();
  }

 private:
  size_t padded() const { return (rows_.columns + kTileDims - 1) / kTileDims * kTileDims; }

  size_t slots() const { return (unique_.size() + kBlockRows - 1) / kBlockRows * kBlockRows; }

  // Rows with the same bytes: the first is kept, the others remembered as its copies.
  void find_copies() {
    struct Hashed {
      uint64_t hash;
      uint32_t id;
    };
    std::vector<Hashed> hashed(rows_.rows);
    const size_t bytes = rows_.columns * sizeof(float);
    for (size_t i = 0; i < rows_.rows; ++i) {
      uint64_t hash = 0;
      for (size_t k = 0; k < rows_.columns; ++k) {
        uint32_t bits;
        std::memcpy(&bits, rows_.row(i) + k, sizeof bits);
        hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
      }
      hashed[i] = {hash, static_cast<uint32_t>(i)};
    }
    std::sort(hashed.begin(), hashed.end(),
              [](const Hashed& a, const Hashed& b) { return a.hash < b.hash || (a.hash == b.hash && a.id < b.id); });
    std::vector<std::pair<uint32_t, uint32_t>> copies;
    std::vector<uint32_t> firsts;  // of one hash
    for (size_t i = 0; i < hashed.size(); ++i) {
      if (i == 0 || hashed[i].hash != hashed[i - 1].hash) firsts.clear();
      const uint32_t id = hashed[i].id;
      const auto same = std::find_if(firsts.begin(), firsts.end(), [&](uint32_t first) {
        return std::memcmp(rows_.row(first), rows_.row(id), bytes) == 0;
      });
      if (same != firsts.end()) {
        copies.emplace_back(*same, id);
      } else {
        firsts.push_back(id);
        unique_.push_back(id);
      }
    }
    std::sort(copies.begin(), copies.end());
    std::sort(unique_.begin(), unique_.end());
    for (const auto& [first, copy] : copies) copies_.insert(copies_.end(), {first, copy});
  }

  void find_mean() {
    const size_t dims = rows_.columns;
    std::vector<double> sums(dims);
    for (const uint32_t id : unique_) {
      for (size_t k = 0; k < dims; ++k) sums[k] += double{rows_.row(id)[k]};
    }
    for (size_t k = 0; k < dims; ++k) {
      mean_[k] = static_cast<float>(sums[k] / std::max<double>(1, static_cast<double>(unique_.size())));
    }
    float largest = 0;
    for (const uint32_t id : unique_) {
      for (size_t k = 0; k < dims; ++k) largest = std::max(largest, std::fabs(rows_.row(id)[k] - mean_[k]));
    }
    safe_scale_ = largest <= kLargestSafe && (largest >= kSmallestSafe || largest == 0);
  }

  void find_directions(size_t count) {
    if (directions_.size() >= count * padded()) return;
    directions_ =
        principal_directions(rows_, unique_.data(), unique_.size(), mean_.data(), count, padded(), table_, memory_);
  }

  Buffer<uint8_t> make(Layout layout) {
    const bool is_scan = layout.representation == Representation::kScan;
    const bool is_rank = layout.representation == Representation::kRank;
    IndexHeader header = {};
    header.magic = kIndexMagic;
    header.version = kIndexVersion;
    header.representation = static_cast<uint32_t>(layout.representation);
    header.dims = static_cast<uint32_t>(rows_.columns);
    header.row_count = static_cast<uint32_t>(rows_.rows);
    header.rows_hash = rows_hash_;
    header.safe_scale = safe_scale_ ? 1 : 0;
    header.copy_count = static_cast<uint32_t>(copies_.size() / 2);
    if (!is_scan) {
      header.slot_count = static_cast<uint32_t>(slots());
      header.rank1 = static_cast<uint32_t>(is_rank ? layout.rank1 : padded());
      header.rank2 = static_cast<uint32_t>(is_rank ? layout.rank2 : padded());
      header.screened = static_cast<uint32_t>(is_rank && layout.screened != layout.rank1 ? layout.screened : 0);
      header.step = 1;
      header.scale = 1;
    }
    index_bytes(header);  // refuses ranks that no index can have, before anything is sized by them
    Projection projection;
    if (is_rank) {
      find_directions(std::max(layout.rank2 - 1, kOrderDirections));
      projection = make_projection(directions_, header.screened == 0 ? layout.rank1 : header.screened, layout.rank1,
                                   layout.rank2, padded(), options_.seed, table_, memory_);
      header.scale = projection.scale;
    }
    Buffer<uint8_t> bytes = new_index(header, memory_);
    SearchIndex index = view_index(bytes.data(), bytes.size(), rows_);
    std::copy_n(mean_.data(), padded(), writable(index.mean));
    std::fill_n(writable(index.states), index.row_count, RowState::kFirst);
    std::copy(copies_.begin(), copies_.end(), writable(index.copies));
    for (size_t i = 1; i < copies_.size(); i += 2) writable(index.states)[copies_[i]] = RowState::kCopy;
    write_row_norms(index, 0);
    if (is_scan) return bytes;
    if (is_rank) write_projection(index, projection.rows.data());
    choose_steps(index, header, unique_.data(), unique_.size(), table_, memory_);
    std::memcpy(bytes.data(), &header, sizeof header);
    index = view_index(bytes.data(), bytes.size(), rows_);
    if (order_.empty()) {
      if (rows_.columns <= kLargestRankDims) find_directions(std::min(kOrderDirections, rows_.columns));
      order_ = near_rows_together(rows_, unique_, mean_.data(), directions_.data(),
                                  std::min(kOrderDirections, directions_.size() / padded()), padded(), table_, memory_);
    }
    const size_t axes = std::min(kOrderAxes * padded(), directions_.size());
    for (size_t i = 0; i < axes; ++i) writable(index.axes)[i] = static_cast<float>(directions_[i]);
    encode_slots(index, 0, order_, table_, memory_);
    return bytes;
  }

  // Builds each candidate and searches the same samples; the one that costs least wins.
  Buffer<uint8_t> best() {
    const std::vector<Layout> layouts = candidate_layouts(rows_.columns);
    size_t most_directions = kOrderDirections;
    for (const Layout& layout : layouts) {
      if (layout.representation == Representation::kRank) most_directions = std::max(most_directions, layout.rank2 - 1);
    }
    const size_t steps = layouts.size() + 1;
    if (options_.progress) options_.progress(0, steps);
    if (rows_.columns <= kLargestRankDims) find_directions(std::min(most_directions, rows_.columns));
    if (options_.progress) options_.progress(1, steps);
    Buffer<uint8_t> chosen = make(kOnlyScan);
    double least = 1.05 * scan_cost(rows_.rows, rows_.columns);
    const auto consider = [&](const Layout& layout) {
      // Too much without a single hit: need not be built.
      if (coding_cost(rows_.columns, layout.rank2, layout.representation) + screening_cost(slots(), layout.screened) >=
          least) {
        return true;
      }
      Buffer<uint8_t> bytes = make(layout);
      const SearchIndex index = view_index(bytes.data(), bytes.size(), rows_);
      const SearchStats stats = trial(index, least);
      const double cost = modelled_cost(index, stats);
      if (cost < least) {
        least = cost;
        chosen = std::move(bytes);
      }
      return hit_cost(index, stats) < screening_cost(slots(), index.rank1) - screening_cost(slots(), index.screened);
    };
    for (size_t i = 0; i < layouts.size(); ++i) {
      Layout layout = layouts[i];
      // Where a part of the coordinates lets so many blocks pass that this costs what it saves, all of them may do
      // better.
      if (!consider(layout) && layout.screened < layout.rank1) {
        layout.screened = layout.rank1;
        consider(layout);
      }
      if (options_.progress) options_.progress(i + 2, steps);
    }
    return chosen;
  }

  // Counts all but what can make no difference to a layout that costs `least` or more.
  SearchStats trial(const SearchIndex& index, double least) {
    // A row of the bank is its own nearest: searching for two finds the one that matters.
    const bool given = options_.samples.rows > 0;
    const size_t available = given ? options_.samples.rows : unique_.size();
    const size_t count = std::min(available, kTrialQueries), k = given ? 1 : 2;
    Buffer<float> queries(memory_, count * rows_.columns, "trial queries");
    for (size_t run = 0; run < count / kQueryLanes * kQueryLanes || run == 0; run += kQueryLanes) {
      // Sixteen neighbors of the given order at a time, as the patches of an image come.
      const size_t first = run * available / count;
      for (size_t i = 0; i < kQueryLanes && run + i < count; ++i) {
        const size_t source = std::min(first + i, available - 1);
        const float* from = given ? options_.samples.row(source) : rows_.row(unique_[source]);
        std::copy_n(from, rows_.columns, queries.data() + (run + i) * rows_.columns);
      }
    }
    const size_t searched = std::max<size_t>(1, count / kQueryLanes * kQueryLanes);
    const auto lost = [&](const SearchStats& known) { return modelled_cost(index, known) >= least; };
    SearchStats stats;
    count_search(index, {queries.data(), std::min(searched, count), rows_.columns}, k, counting_, lost, memory_, stats);
    return stats;
  }

  MatrixView<const float> rows_;
  const BuildOptions& options_;
  const KernelTable& table_;
  const KernelTable counting_;
  Memory& memory_;
  Buffer<float> mean_;
  bool safe_scale_ = false;
  uint64_t rows_hash_ = 0;
  std::vector<uint32_t> unique_, copies_, order_;
  Buffer<double> directions_;
};

}  // namespace

Buffer<uint8_t> build_index(MatrixView<const float> rows, const BuildOptions& options, const KernelTable& table,
                            Memory& memory) {
  if (rows.columns == 0 || rows.columns > 65536 || rows.rows >= kNoRow || rows.stride != rows.columns) {
    fail(Status::kInput,
         "memory bank is %zu x %zu (stride %zu); expected contiguous rows of 1 to 65536 values, fewer "
         "than 2^32 - 1 of them",
         rows.rows, rows.columns, rows.stride);
  }
  check_finite_rows(rows, "memory bank");
  return Builder(rows, options, table, memory).build();
}

}  // namespace onceover
