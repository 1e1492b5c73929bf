// Rows come and go without coding the others again: new rows take new blocks, removed ones leave empty slots.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "scoring/bounds.h"
#include "scoring/build.h"
#include "scoring/encode.h"

namespace onceover {
namespace {

using Copies = std::vector<std::pair<uint32_t, uint32_t>>;

template <typename T>
void copy_section(const T* from, size_t count, const T* to) {
  if (count > 0) std::memcpy(writable(to), from, count * sizeof(T));
}

// Everything of `from` that `to`, which is at least as large, holds under the same numbers.
void copy_index(const SearchIndex& from, const SearchIndex& to) {
  const bool is_rank = from.representation == Representation::kRank;
  copy_section(from.states, from.row_count, to.states);
  copy_section(from.row_norms, from.row_count, to.row_norms);
  copy_section(from.mean, from.padded_dims(), to.mean);
  if (from.rank1 > 0) copy_section(from.axes, kOrderAxes * from.padded_dims(), to.axes);
  copy_section(from.weights, from.rank2, to.weights);
  if (is_rank) {
    copy_section(from.projection, from.rank2 * from.padded_dims(), to.projection);
    copy_section(from.projection_sums, from.rank2, to.projection_sums);
  }
  copy_section(from.blocks.codes, from.slot_count * from.rank1, to.blocks.codes);
  copy_section(from.blocks.norms, from.slot_count, to.blocks.norms);
  copy_section(from.blocks.sums, from.slot_count, to.blocks.sums);
  copy_section(from.block_errors, from.block_count(), to.block_errors);
  copy_section(from.refine, from.slot_count * from.rank2, to.refine);
  copy_section(from.facts, from.slot_count, to.facts);
}

bool is_safe_row(const SearchIndex& index, const float* row) {
  for (size_t k = 0; k < index.dims; ++k) {
    if (!(std::fabs(row[k] - index.mean[k]) <= kLargestSafe)) return false;
  }
  return true;
}

}  // namespace

Buffer<uint8_t> append_to_index(const SearchIndex& index, MatrixView<const float> rows, const KernelTable& table,
                                Memory& memory) {
  const size_t added = rows.rows - index.row_count;
  const bool has_codes = index.representation != Representation::kScan;
  IndexHeader header = header_of(index);
  header.row_count = static_cast<uint32_t>(rows.rows);
  header.rows_hash = hash_rows({rows.row(index.row_count), added, rows.columns}, index.rows_hash);
  if (has_codes) {
    header.slot_count += static_cast<uint32_t>((added + kBlockRows - 1) / kBlockRows * kBlockRows);
  }
  for (size_t i = index.row_count; i < rows.rows; ++i) {
    if (!is_safe_row(index, rows.row(i))) header.safe_scale = 0;  // from now on, float64 decides alone
  }
  Buffer<uint8_t> bytes = new_index(header, memory);
  const SearchIndex grown = view_index(bytes.data(), bytes.size(), rows);
  copy_index(index, grown);
  copy_section(index.copies, 2 * index.copy_count, grown.copies);
  std::fill(writable(grown.states) + index.row_count, writable(grown.states) + rows.rows, RowState::kFirst);
  write_row_norms(grown, index.row_count);
  if (!has_codes) return bytes;
  std::vector<uint32_t> ids(added);
  for (size_t i = 0; i < added; ++i) ids[i] = static_cast<uint32_t>(index.row_count + i);
  encode_slots(grown, index.slot_count, ids, table, memory);
  return bytes;
}

Buffer<uint8_t> remove_from_index(const SearchIndex& index, const uint32_t* ids, size_t count, Memory& memory) {
  std::vector<uint8_t> gone(index.row_count);
  for (size_t i = 0; i < count; ++i) gone[ids[i]] = 1;
  // The first copy of a removed row that stays takes its slot, and the other copies with it.
  std::vector<uint32_t> heir(index.row_count);
  for (size_t id = 0; id < heir.size(); ++id) heir[id] = gone[id] ? kNoRow : static_cast<uint32_t>(id);
  Copies copies;
  for (size_t i = 0; i < index.copy_count; ++i) {
    const uint32_t first = index.copies[2 * i], copy = index.copies[2 * i + 1];
    if (gone[copy]) continue;
    if (heir[first] == kNoRow) {
      heir[first] = copy;
    } else {
      copies.emplace_back(heir[first], copy);
    }
  }
  std::sort(copies.begin(), copies.end());
  IndexHeader header = header_of(index);
  header.removed_count += static_cast<uint32_t>(count);
  header.copy_count = static_cast<uint32_t>(copies.size());
  Buffer<uint8_t> bytes = new_index(header, memory);
  const SearchIndex left = view_index(bytes.data(), bytes.size(), index.rows);
  copy_index(index, left);
  for (size_t i = 0; i < copies.size(); ++i) {
    writable(left.copies)[2 * i] = copies[i].first;
    writable(left.copies)[2 * i + 1] = copies[i].second;
  }
  for (size_t i = 0; i < count; ++i) {
    writable(left.states)[ids[i]] = RowState::kRemoved;
    if (heir[ids[i]] != kNoRow) writable(left.states)[heir[ids[i]]] = RowState::kFirst;
  }
  for (size_t slot = 0; slot < left.slot_count; ++slot) {
    const uint32_t id = left.facts[slot].id;
    if (id == kNoRow || heir[id] == id) continue;
    writable(left.facts)[slot].id = heir[id];
    if (heir[id] != kNoRow) continue;  // the same bytes under another number
    int8_t* codes = writable(left.blocks.codes) + slot / 16 * 16 * left.rank1 + slot % 16 * kTileDims;
    for (size_t j = 0; j < left.rank1; ++j) codes[j / kTileDims * kTileBytes + j % kTileDims] = 0;
    writable(left.blocks.norms)[slot] = kEmptySlotNorm;
    writable(left.blocks.sums)[slot] = 0;
    if (left.screened < left.rank1) writable(left.facts)[slot].screen = pack_screen(0, 0);
  }
  return bytes;
}

}  // namespace onceover
