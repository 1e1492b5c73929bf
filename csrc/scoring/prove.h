// After the screen: from block maxima to the exact nearest rows of one group of 16 queries.
#pragma once

#include "scoring/neighbors.h"
#include "scoring/query_codes.h"
#include "scoring/search.h"

namespace onceover {

struct Candidate {
  float squared;  // of the second bound
  uint32_t pair;  // slot · 16 + lane
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
