// The search index of a memory bank: what is stored beside the float rows so that almost all of them need not be read.
// One flat block of bytes (a package member, a mapped file, memory), viewed in place. Every error norm in it is an
// upper bound; EXACTNESS.md derives them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/matrix_view.h"
#include "base/memory.h"
#include "kernels/kernel_table.h"

namespace onceover {

enum class Representation : uint32_t {
  kScan = 0,  // no codes: every search reads every row
  kRank = 1,  // codes of a projection to rank1 − 1 directions and of the norm of the rest
  kFull = 2,  // codes of all coordinates
};

const char* name_of(Representation representation) noexcept;

inline constexpr uint32_t kIndexMagic = 0x4958424f;  // "OBXI"
inline constexpr uint32_t kIndexVersion = 1;
inline constexpr uint32_t kNoRow = UINT32_MAX;
inline constexpr size_t kOrderAxes = 4;

// The first 128 bytes of an index; the sections follow in the order of SearchIndex, each at a multiple of 64.
struct IndexHeader {
  uint32_t magic, version;
  uint32_t representation;
  uint32_t dims;        // D
  uint32_t row_count;   // rows of the memory bank, removed ones included
  uint32_t slot_count;  // a multiple of 32; 0 for kScan
  uint32_t rank1;       // coordinates screened, a multiple of 64
  uint32_t rank2;       // coordinates of the second bound, ≥ rank1, a multiple of 16 apart
  uint32_t copy_count;  // rows equal to a lower one
  uint32_t removed_count;
  uint32_t safe_scale;  // 1: float32 arithmetic neither overflows nor vanishes on these rows
  float step;           // of the codes
  float tail_mean;      // taken from the norm of the rest before it is coded
  uint32_t screened;    // kRank: how many of the rank1 coordinates, the last ones, prune by themselves; 0: all of them
  double scale;         // of the projection, a contraction: its largest singular value times this is ≤ 1
  uint64_t rows_hash;   // hash_rows of the rows it is made for
  uint8_t zeros[56];
};
static_assert(sizeof(IndexHeader) == 128);

enum class RowState : uint8_t {
  kRemoved = 0,
  kFirst = 1,
  kCopy = 2,  // has the bytes of a lower row, which is searched for it (SearchIndex::copies)
};

// What the second bound needs of a row beside its codes, in one place.
struct SlotFacts {
  float tail;           // norm of what the rank2 − 1 directions leave
  float refined_error;  // of what codes and refine stand for
  uint32_t id;          // row of the bank, kNoRow for an empty slot
  uint32_t screen;      // norm and sum (CodeBlocks) of the coordinates screened, where these are not all: pack_screen
};
static_assert(sizeof(SlotFacts) == 16);

inline constexpr size_t kMostSlots = size_t{1} << 28;

// Of at most kMostScreened codes c: 0 ≤ norm / 2 ≤ |c|²/4 < 2^18 and |sum| < 2^13. Every number unpacks within these.
inline constexpr size_t kMostScreened = 64;
inline uint32_t pack_screen(int32_t norm, int32_t sum) noexcept {
  return static_cast<uint32_t>(norm / 2) << 14 | static_cast<uint32_t>(sum + (1 << 13));
}
inline int32_t screen_norm(uint32_t packed) noexcept { return static_cast<int32_t>(packed >> 14) * 2; }
inline int32_t screen_sum(uint32_t packed) noexcept { return static_cast<int32_t>(packed & 0x3fff) - (1 << 13); }

struct SearchIndex {
  Representation representation = Representation::kScan;
  size_t dims = 0, row_count = 0, slot_count = 0, rank1 = 0, rank2 = 0, copy_count = 0, removed_count = 0;
  size_t screened = 0;  // of the rank1 coordinates, the last ones; rank1: all
  bool safe_scale = false;
  float step = 0, tail_mean = 0;
  double scale = 0;
  uint64_t rows_hash = 0;
  MatrixView<const float> rows;  // (row_count, dims), outside the index

  const RowState* states = nullptr;          // (row_count)
  const float* row_norms = nullptr;          // (row_count) ≥ |row − mean|
  const float* mean = nullptr;               // (padded_dims), 0 beyond dims
  const float* axes = nullptr;               // (kOrderAxes, padded_dims) directions by which queries are put in order
  const float* weights = nullptr;            // (rank2) what one unit of a refined code stands for
  const int8_t* projection = nullptr;        // (rank2 / 16, plane_tiles, 16, 64) whole numbers; row rank1 − 1 is zero
  const int32_t* projection_sums = nullptr;  // (rank2)
  CodeBlocks blocks = {};
  const float* block_errors = nullptr;  // (blocks) largest |z − step · code| of the block's rows
  const int8_t* refine = nullptr;       // (slot_count, rank2)
  const SlotFacts* facts = nullptr;     // (slot_count)
  const uint32_t* copies = nullptr;     // (copy_count, 2) lower row, equal row; ascending

  size_t padded_dims() const { return (dims + kTileDims - 1) / kTileDims * kTileDims; }
  size_t plane_tiles() const { return padded_dims() / kTileDims; }
  size_t block_count() const { return slot_count / kBlockRows; }
  // kRank: the coordinate that holds the norm of the rest.
  size_t tail_coordinate() const { return rank1 - 1; }
};

// The header that a viewed index began with.
IndexHeader header_of(const SearchIndex& index) noexcept;

// Bytes of an index with this header. Throws Error(kInput) when a field is out of range.
size_t index_bytes(const IndexHeader& header);

// Views `size` bytes, 64-byte aligned. Throws Error(kInput) naming what does not fit: a damaged or foreign block can
// make a search wrong, but never read or write outside.
SearchIndex view_index(const uint8_t* bytes, size_t size, MatrixView<const float> rows);

// A hash of all bytes of the rows; with an earlier result as `seed`, of both one after the other.
uint64_t hash_rows(MatrixView<const float> rows, uint64_t seed = 0) noexcept;

// Throws Error(kInput) when the index was made for other rows: searching with it would find wrong ones. Reads all rows.
void check_made_for(const SearchIndex& index);

// Zeroed bytes for `header`, with the header written; fill through mutable pointers of its view.
Buffer<uint8_t> new_index(const IndexHeader& header, Memory& memory);

// The view's pointers are to constant data because readers map files; whoever made the bytes may write them.
template <typename T>
T* writable(const T* pointer) noexcept {
  return const_cast<T*>(pointer);
}

}  // namespace onceover
