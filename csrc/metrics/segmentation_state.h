// Everything the pixel metrics of a test set need, gathered image by image and mergeable: the metrics follow from the
// ranks of the anomalous scores among the normal ones, so normal scores are counted and only anomalous ones are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "metrics/key_counter.h"
#include "metrics/regions.h"
#include "metrics/weighted_keys.h"

namespace onceover {

enum class ScoreType { kFloat32, kFloat16, kUint8, kUint16 };

// Somebody else's anomaly map, (height, width) scores.
struct ScoreView {
  const void* data = nullptr;
  ScoreType type = ScoreType::kFloat32;
  size_t height = 0;
  size_t width = 0;
  ptrdiff_t stride_bytes = 0;
};

// The anomalous pixels of one kind of defect.
struct DefectGroup {
  WeightedKeys pixels;          // area: of the region
  WeightedKeys channel_pixels;  // sPRO: the highest pixels of each channel, area: its saturation area
  uint64_t regions = 0;
  uint64_t channels = 0;
};

class SegmentationState {
 public:
  static constexpr size_t kMaxGroups = 65536;
  static constexpr int kMaxDroppedBits = 24;
  static constexpr size_t kMinBudgetBytes = size_t{4} << 20;  // leaves about 2 MB to the pages themselves

  // page_budget_bytes: of the normal scores; beyond it their keys lose low bits, and metrics get bounds. 0: no limit.
  SegmentationState(int connectivity, size_t page_budget_bytes, const KernelTable& table);

  // `mask` has the size of the map; null data for a good image. Returns the number of regions. Throws Error(kInput) for
  // NaN; nothing has changed then.
  size_t update(const ScoreView& map, const MaskView& mask, size_t group);

  // A mask for each defect ("channel" of MVTec LOCO; they may overlap); sPRO counts at most saturation_areas[i] pixels
  // of channel i. For all else the image's mask is the union of the channels.
  size_t update_channels(const ScoreView& map, const std::vector<MaskView>& channels,
                         const std::vector<uint32_t>& saturation_areas, size_t group);

  // Everything in `other`; its group i becomes groups[i] here, or stays i if `groups` is empty. Throws Error(kUsage)
  // when the connectivity differs, or a group has no number.
  void merge(const SegmentationState& other, const std::vector<size_t>& groups = {});

  int connectivity() const { return finder_.connectivity(); }
  size_t page_budget_bytes() const { return page_budget_bytes_; }
  int dropped_bits() const { return dropped_bits_; }
  uint64_t images() const { return images_; }
  uint64_t normal_pixels() const;
  uint64_t anomalous_pixels() const;
  const std::vector<DefectGroup>& groups() const { return groups_; }
  size_t size_bytes() const;

  // For ranks.h and state_file.h.
  KeyCounter& settled_normals() {
    check_whole();
    normals_.settle();
    return normals_;
  }
  // Normal scores of 16-bit maps, ascending by key, exact whatever was dropped.
  std::vector<std::pair<uint32_t, uint64_t>> coded_normals() const;
  const KernelTable& table() const { return *table_; }

 private:
  friend class StateFile;

  using Codes = std::vector<uint64_t>;  // how often each 16-bit code occurred; empty or 65536

  void check(const ScoreView& map) const;
  void check_group(size_t group) const;
  void take(const ScoreView& map, DefectGroup& group);
  void check_whole() const;
  void drop_bits(int bits);
  void keep_budget();

  const KernelTable* table_;
  RegionFinder finder_;
  size_t page_budget_bytes_;
  int dropped_bits_ = 0;
  uint64_t images_ = 0;
  bool is_whole_ = true;            // false once memory ran out in the middle of an update or a merge
  KeyCounter normals_;              // keys >> dropped_bits_
  Codes half_codes_, whole_codes_;  // of float16 maps; of uint8 and uint16 maps
  std::vector<DefectGroup> groups_;
};

}  // namespace onceover
