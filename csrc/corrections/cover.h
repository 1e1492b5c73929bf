// Which patches of a false alarm must join the memory bank so that it is none any more.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix_view.h"

namespace onceover {

// Patches of an image, worst first, such that with their embeddings in the bank every patch that was above `threshold`
// is within kCoverShare of it: greedy, the farthest one next (Gonzalez 1985). None for an image below the threshold.
// embeddings (P, D), patch_scores (P): distances to the bank as it is, times `weights` (P) unless these are null.
inline constexpr float kCoverShare = 0.5f;  // docs/corrections.md: how many rows it saves, and what it costs
std::vector<uint32_t> cover(MatrixView<const float> embeddings, const float* patch_scores, float threshold,
                            const float* weights = nullptr, float share = kCoverShare);

}  // namespace onceover
