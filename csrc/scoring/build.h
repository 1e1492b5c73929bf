// Memory bank rows → search index: duplicates set aside, rows ordered so that near ones share a block, the
// representation chosen by counting what a search of sample patches would cost.
#pragma once

#include <functional>

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"
#include "scoring/search_index.h"

namespace onceover {

inline constexpr size_t kDefaultScreened = 32;

struct BuildOptions {
  uint64_t seed = 0;
  // Patches that are not rows of the bank (held-out ones), to judge representations by; without them, rows of the bank
  // are searched among the others.
  MatrixView<const float> samples;
  // Force one representation (tests, benchmarks); the ranks are for kRank.
  bool forced = false;
  Representation representation = Representation::kScan;
  size_t rank1 = 0, rank2 = 0;
  size_t screened = kDefaultScreened;  // of the rank1 coordinates; 0 or rank1: all
  // Called with (done, total) steps; may throw to stop.
  std::function<void(size_t, size_t)> progress;
};

// Same rows and options: same bytes, whatever the table. Throws Error(kInput) for a NaN or infinity (naming the row) or
// a shape out of range, Error(kMemory) when `memory` has a limit and it is reached.
Buffer<uint8_t> build_index(MatrixView<const float> rows, const BuildOptions& options, const KernelTable& table,
                            Memory& memory);

// The index with `added` rows at the end of `rows` coded in new blocks, in the projection it has; earlier blocks are
// copied as they are. `rows` holds all rows, the old ones first.
Buffer<uint8_t> append_to_index(const SearchIndex& index, MatrixView<const float> rows, const KernelTable& table,
                                Memory& memory);

// The index without `count` rows that are there, each named once: their slots become empty, or go to an equal row.
Buffer<uint8_t> remove_from_index(const SearchIndex& index, const uint32_t* ids, size_t count, Memory& memory);

}  // namespace onceover
