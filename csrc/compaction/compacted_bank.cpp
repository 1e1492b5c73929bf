#include "compaction/compacted_bank.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "session/bank_members.h"

namespace onceover {
namespace {

constexpr size_t kRowsAtATime = 1024;  // between two reports

float rounded_up(float value) { return std::nextafter(value, std::numeric_limits<float>::infinity()); }

}  // namespace

CompactedBank::CompactedBank(const Package& package, const Config& config, uint32_t product, const BankChanges& changes,
                             const CompactProgress& progress)
    : product_(product),
      dims_(config.embedding_dim),
      fitted_(memory_bank_of(package, config, product)),
      numbers_(fitted_.rows, kNoRow) {
  Memory memory;
  Buffer<uint8_t> own;
  const SearchIndex index = index_of(package, fitted_, kernels(), memory, own, product);
  for (uint32_t row = 0; row < fitted_.rows; ++row) {
    if (index.states[row] == RowState::kRemoved) continue;
    if (std::binary_search(changes.removed.begin(), changes.removed.end(), row)) continue;
    numbers_[row] = static_cast<uint32_t>(left_.size());
    left_.push_back(row);
  }
  rows_.reserve(left_.size() * dims_ + changes.added.size());
  for (const uint32_t row : left_) rows_.insert(rows_.end(), fitted_.row(row), fitted_.row(row) + dims_);
  rows_.insert(rows_.end(), changes.added.begin(), changes.added.end());
  // Seed 0, whatever the fit's was: it names projections, which decide what a search costs and never what it finds.
  BuildOptions options;
  options.progress = [&](size_t done, size_t total) { progress("search index", done, total); };
  bank_ = std::make_unique<MemoryBank>(rows(), options, kernels());
}

std::vector<uint32_t> CompactedBank::neighbors(size_t k, size_t threads, const CompactProgress& progress) const {
  const MatrixView<const float> all = rows();
  const size_t wanted = std::min(k, all.rows);
  std::vector<uint32_t> found(all.rows * wanted);
  std::vector<float> distances(kRowsAtATime * wanted);
  SearchStats stats;
  for (size_t first = 0; first < all.rows; first += kRowsAtATime) {
    const size_t count = std::min(kRowsAtATime, all.rows - first);
    bank_->search({all.row(first), count, dims_}, wanted, distances.data(), found.data() + first * wanted, threads,
                  stats);
    progress("neighbors", first + count, all.rows);
  }
  return found;
}

std::vector<uint8_t> compacted_patches(const CalibrationPatches& old, const Config& config, const CompactedBank& bank,
                                       const BankChanges& changes, const Package& package) {
  const size_t images = old.image_count, count = config.cell_count(), tracked = old.tracked;
  const size_t dims = config.embedding_dim, removed = changes.removed.size();
  // From each row that is gone to the nearest one that is there.
  std::vector<float> distances(std::max(removed, tracked));
  std::vector<uint32_t> instead(removed), rows(tracked);
  SearchStats stats;
  for (size_t i = 0; i < removed; ++i) {
    bank.bank().search({bank.fitted().row(changes.removed[i]), 1, dims}, 1, &distances[i], &instead[i], 1, stats);
  }
  std::vector<float> on(distances.begin(), distances.begin() + static_cast<ptrdiff_t>(removed));
  for (float& distance : on) distance = rounded_up(distance);

  std::vector<uint8_t> inside(count, 1);
  const Roi roi = read_roi(package, bank.product());
  if (!roi.whole()) roi.mark({inside.data(), config.tiles().height(), config.tiles().width()});
  std::vector<float> kept_distances(images * count);  // 0 and row 0 outside, as a session has them
  std::vector<uint32_t> nearest(images * count);
  for (size_t i = 0; i < nearest.size(); ++i) {
    if (inside[i % count] == 0) continue;
    kept_distances[i] = old.distances[i];
    const uint32_t row = old.nearest[i];
    nearest[i] = bank.number_of(row);
    if (nearest[i] != kNoRow) continue;
    const auto found = std::lower_bound(changes.removed.begin(), changes.removed.end(), row);
    if (found == changes.removed.end() || *found != row) {
      fail(Status::kPackage, "%s: member '%s' names row %u, which its search index has removed; fit again",
           package.label().c_str(), member_name("calibration_patches", bank.product()).c_str(), row);
    }
    // Triangle inequality, as recalibrate has it.
    const auto at = static_cast<size_t>(found - changes.removed.begin());
    kept_distances[i] = rounded_up(rounded_up(kept_distances[i]) + on[at]);
    nearest[i] = instead[at];
  }
  for (size_t image = 0; image < images; ++image) {
    const MatrixView<const float> kept(old.embeddings + image * tracked * dims, tracked, dims);
    bank.bank().search(kept, 1, distances.data(), rows.data(), 1, stats);
    for (size_t t = 0; t < tracked; ++t) {
      const size_t cell = old.patches[image * tracked + t];
      if (inside[cell] == 0) continue;
      kept_distances[image * count + cell] = distances[t];
      nearest[image * count + cell] = rows[t];
    }
  }

  CalibrationPatchesRecord record{};
  record.record_bytes = sizeof record;
  record.image_count = old.image_count;
  record.tracked = old.tracked;
  record.patch_count = static_cast<uint32_t>(count);
  record.dims = config.embedding_dim;
  record.bounds = 1;  // a row that joined may be nearer than the score says
  std::vector<uint8_t> out(sizeof record);
  std::memcpy(out.data(), &record, sizeof record);
  const auto add = [&out](const void* values, size_t number) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    out.insert(out.end(), bytes, bytes + number * 4);
  };
  add(old.parts, images);
  add(kept_distances.data(), kept_distances.size());
  add(nearest.data(), nearest.size());
  add(old.patches, images * tracked);
  add(old.embeddings, images * tracked * dims);
  return out;
}

}  // namespace onceover
