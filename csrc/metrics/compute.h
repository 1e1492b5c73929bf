// State → metrics, exactly: AUPRO (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021), AUROC, average
// precision, largest F1 and saturated PRO (Bergmann et al., "Beyond Dents and Scratches", IJCV 2022), from the ranks
// (above, at_or_above) of each distinct anomalous score among the normal ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "metrics/segmentation_state.h"

namespace onceover {

inline constexpr int kAllGroups = -1;

struct SegmentationMetrics {
  std::vector<double> aupro, auspro;  // for each limit; auspro is NaN without channels
  double pixel_auroc = 0, average_precision = 0, f1_max = 0;
  float f1_max_threshold = 0;  // the lowest of the best
};

struct SegmentationResult {
  SegmentationMetrics value;
  bool certified = false;            // low bits of keys were dropped: the exact values lie in [lower, upper]
  SegmentationMetrics lower, upper;  // thresholds in here mean nothing
  uint64_t regions = 0, channels = 0, anomalous_pixels = 0, normal_pixels = 0;
};

// Metrics of the anomalous pixels of one group, or of all, against all normal pixels; NaN where a class is missing.
// Throws Error(kUsage) for a limit outside (0, 1] and a group that is not there. Settles the state.
SegmentationResult compute_metrics(SegmentationState& state, const std::vector<double>& fpr_limits, int group);

// Vertices of the PRO, sPRO, ROC and PR curves, thresholds descending from +infinity: FPR and the others are those of
// `score >= threshold`. Linear between vertices (PR: a step), nothing left out.
struct SegmentationCurve {
  std::vector<float> thresholds;
  std::vector<double> fpr, pro, spro, tpr, precision;
};

// Empty where a class is missing. With dropped bits, ties are what shares the kept bits.
SegmentationCurve compute_curve(SegmentationState& state, int group);

}  // namespace onceover
