#include "corrections/cover.h"

#include <algorithm>
#include <cmath>

namespace onceover {

std::vector<uint32_t> cover(MatrixView<const float> embeddings, const float* patch_scores, float threshold,
                            const float* weights, float share) {
  struct Far {
    uint32_t patch;
    float score;
  };
  std::vector<Far> far;
  for (size_t p = 0; p < embeddings.rows; ++p) {
    if (patch_scores[p] > threshold) far.push_back({static_cast<uint32_t>(p), patch_scores[p]});
  }
  std::vector<uint32_t> chosen;
  while (chosen.size() < far.size()) {
    const auto next =
        std::max_element(far.begin(), far.end(), [](const Far& a, const Far& b) { return a.score < b.score; });
    if (next->score <= share * threshold) break;
    chosen.push_back(next->patch);
    const float* center = embeddings.row(next->patch);
    for (Far& each : far) {
      const float* row = embeddings.row(each.patch);
      double squared = 0;
      for (size_t k = 0; k < embeddings.columns; ++k) {
        const double difference = double{row[k]} - double{center[k]};
        squared += difference * difference;
      }
      const float weight = weights == nullptr ? 1.0f : weights[each.patch];
      each.score = std::min(each.score, static_cast<float>(std::sqrt(squared)) * weight);
    }
  }
  return chosen;
}

}  // namespace onceover
