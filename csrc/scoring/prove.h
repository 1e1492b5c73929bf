// After the screen: from block maxima to the exact nearest rows of one group of 16 queries.
#pragma once

#include <cstring>

#include "scoring/neighbors.h"
#include "scoring/query_codes.h"
#include "scoring/search.h"

namespace onceover {

// Of the second bound, a sum of squares ≥ 0, and slot · 16 + lane: as one number, ordered by both.
class Candidate {
 public:
  Candidate(float squared, uint32_t pair) noexcept {
    uint32_t bits;
    std::memcpy(&bits, &squared, sizeof bits);
    key_ = uint64_t{bits} << 32 | pair;
  }
  float squared() const noexcept {
    const auto bits = static_cast<uint32_t>(key_ >> 32);
    float squared;
    std::memcpy(&squared, &bits, sizeof squared);
    return squared;
  }
  uint32_t pair() const noexcept { return static_cast<uint32_t>(key_); }
  bool operator<(const Candidate& other) const noexcept { return key_ < other.key_; }

 private:
  uint64_t key_;
};

struct ProofBuffers {
  uint32_t* blocks;       // [kHitsAtOnce]
  int32_t* thresholds;    // [kHitsAtOnce][16]
  uint16_t* hits;         // [kHitsAtOnce][32]
  uint32_t* pairs;        // [kMostPairs]
  float* squared;         // [kMostPairs]
  Candidate* candidates;  // [kMostPairs]
  uint64_t* order;        // [blocks] of one lane, to seed k > 1
  ProofBuffers(Scratch& scratch, const SearchIndex& index);
};

// Fills neighbors of the coded lanes (k entries each at `entries`), from the maxima that `screened` gave, some of which
// are overwritten. A lane whose proof would cost more than a scan gets kind kScan instead.
void prove_group(const SearchIndex& index, const CodeBlocks& screened, MatrixView<const float> queries, size_t k,
                 int32_t* maxima, QueryGroup& group, Neighbor* entries, const KernelTable& table, ProofBuffers& buffers,
                 SearchStats& stats) noexcept;

}  // namespace onceover
