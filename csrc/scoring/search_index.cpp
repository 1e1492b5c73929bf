#include "scoring/search_index.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/finite.h"
#include "scoring/bounds.h"

namespace onceover {
namespace {

constexpr size_t kMaxDims = 65536;

// Hands out the sections of an index one after the other.
class Sections {
 public:
  explicit Sections(const uint8_t* bytes) : bytes_(bytes) {}
  template <typename T>
  void take(const T*& pointer, size_t count) {
    if (bytes_ != nullptr) pointer = reinterpret_cast<const T*>(bytes_ + at_);
    at_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }
  size_t end() const { return at_; }

 private:
  const uint8_t* bytes_;
  size_t at_ = sizeof(IndexHeader);
};

size_t lay_out(const IndexHeader& header, const uint8_t* bytes, SearchIndex& index) {
  index.representation = static_cast<Representation>(header.representation);
  index.dims = header.dims;
  index.row_count = header.row_count;
  index.slot_count = header.slot_count;
  index.rank1 = header.rank1;
  index.rank2 = header.rank2;
  index.screened = header.screened == 0 ? header.rank1 : header.screened;
  index.copy_count = header.copy_count;
  index.removed_count = header.removed_count;
  index.safe_scale = header.safe_scale == 1;
  index.step = header.step;
  index.tail_mean = header.tail_mean;
  index.scale = header.scale;
  index.rows_hash = header.rows_hash;
  index.blocks.tiles = header.rank1 / kTileDims;
  const bool is_rank = index.representation == Representation::kRank;
  Sections sections(bytes);
  sections.take(index.states, index.row_count);
  sections.take(index.row_norms, index.row_count);
  sections.take(index.mean, index.padded_dims());
  sections.take(index.axes, index.representation == Representation::kScan ? 0 : kOrderAxes * index.padded_dims());
  sections.take(index.weights, index.rank2);
  sections.take(index.projection, is_rank ? index.rank2 * index.padded_dims() : 0);
  sections.take(index.projection_sums, is_rank ? index.rank2 : 0);
  sections.take(index.blocks.codes, index.slot_count * index.rank1);
  sections.take(index.blocks.norms, index.slot_count);
  sections.take(index.blocks.sums, index.slot_count);
  sections.take(index.block_errors, index.block_count());
  sections.take(index.refine, index.slot_count * index.rank2);
  sections.take(index.facts, index.slot_count);
  sections.take(index.copies, 2 * index.copy_count);
  return sections.end();
}

[[noreturn]] void refuse(const char* field, unsigned long long got, const char* allowed) {
  fail(Status::kInput, "search index: field '%s' is %llu, expected %s; build the index again", field, got, allowed);
}

void check_header(const IndexHeader& header) {
  if (header.magic != kIndexMagic) refuse("magic", header.magic, "1230520911");
  if (header.version != kIndexVersion) refuse("version", header.version, "1; it may be of a newer onceover");
  if (header.representation > 2) refuse("representation", header.representation, "0 to 2");
  if (header.dims < 1 || header.dims > kMaxDims) refuse("dims", header.dims, "1 to 65536");
  if (header.row_count == kNoRow) refuse("row_count", header.row_count, "less than 2^32 - 1");
  if (header.copy_count > header.row_count) refuse("copy_count", header.copy_count, "at most row_count");
  if (header.removed_count > header.row_count) refuse("removed_count", header.removed_count, "at most row_count");
  if (header.safe_scale > 1) refuse("safe_scale", header.safe_scale, "0 or 1");
  if (header.slot_count % kBlockRows != 0 || header.slot_count > kMostSlots) {
    refuse("slot_count", header.slot_count, "a multiple of 32 up to 2^28");
  }
  if (header.representation == 0) {
    if (header.rank1 != 0 || header.rank2 != 0 || header.slot_count != 0) refuse("rank1", header.rank1, "0 in a scan");
    return;
  }
  const size_t padded = (size_t{header.dims} + kTileDims - 1) / kTileDims * kTileDims;
  if (header.rank1 < kTileDims || header.rank1 % kTileDims != 0 || header.rank1 > padded) {
    refuse("rank1", header.rank1, "a multiple of 64 up to the padded dims");
  }
  if (header.rank2 < header.rank1 || (header.rank2 - header.rank1) % kQueryLanes != 0 || header.rank2 > padded) {
    refuse("rank2", header.rank2, "rank1 plus a multiple of 16, up to the padded dims");
  }
  if (header.rank1 > kMostRank1) refuse("rank1", header.rank1, "at most 16384");
  if (header.representation == 1 && header.rank2 > kMostRank2) refuse("rank2", header.rank2, "at most 4096");
  const uint32_t screened = header.screened;
  const bool screens_part = header.representation == 1 && screened < header.rank1 && screened <= kMostScreened;
  if (screened != 0 && (!screens_part || screened % kQueryLanes != 0)) {
    refuse("screened", screened, "0, or in rank a multiple of 16 below rank1, up to 64");
  }
  if (header.representation == 2 && (header.rank1 != padded || header.rank2 != padded)) {
    refuse("rank1", header.rank1, "all of the padded dims");
  }
  const float step = header.step;
  if (!(step >= kSmallestStep) || !std::isfinite(step)) {
    fail(Status::kInput, "search index: the step is %g, expected a finite number of at least %g; build it again",
         double{step}, double{kSmallestStep});
  }
  // A projection by whole numbers that lengthens nothing has a scale of at most 1; a larger one could make infinities.
  if (header.representation == 1 && !(header.scale > 0 && header.scale <= 1 && std::isfinite(header.tail_mean))) {
    fail(Status::kInput,
         "search index: the projection has scale %g and mean tail %g, expected a scale above 0 and at most 1 and a "
         "finite "
         "mean; build it again",
         header.scale, double{header.tail_mean});
  }
}

void check_whole_number(const char* what, size_t at, int64_t got, int64_t low, int64_t high) {
  if (got >= low && got <= high) return;
  fail(Status::kInput, "search index: %s %zu is %lld, expected %lld to %lld; build the index again", what, at,
       static_cast<long long>(got), static_cast<long long>(low), static_cast<long long>(high));
}

// What would overflow in whole-number arithmetic: a damaged index may find wrong rows, but nothing undefined happens.
void check_numbers(const SearchIndex& index) {
  // A row that is added is coded by these, in whole numbers.
  if (!all_finite(index.mean, index.padded_dims())) refuse("a mean", 0, "finite numbers");
  if (index.representation != Representation::kScan && !all_finite(index.weights, index.rank2)) {
    refuse("a weight", 0, "finite numbers");
  }
  if (index.representation == Representation::kRank) {
    const auto largest = static_cast<int64_t>(index.padded_dims()) * 127;
    for (size_t row = 0; row < index.rank2; ++row) {
      check_whole_number("projection sum", row, index.projection_sums[row], -largest, largest);
    }
  }
  const auto largest = static_cast<int64_t>(index.rank1) * 128;
  for (size_t slot = 0; slot < index.slot_count; ++slot) {
    check_whole_number("code sum", slot, index.blocks.sums[slot], -largest, largest);
    check_whole_number("norm", slot, index.blocks.norms[slot], 0, kEmptySlotNorm);
  }
}

void check_rows_named(const SearchIndex& index) {
  for (size_t slot = 0; slot < index.slot_count; ++slot) {
    const uint32_t id = index.facts[slot].id;
    if (id != kNoRow && id >= index.row_count) refuse("facts.id", id, "a row");
  }
  for (size_t i = 0; i < index.row_count; ++i) {
    const auto state = static_cast<uint8_t>(index.states[i]);
    if (state > static_cast<uint8_t>(RowState::kCopy)) refuse("states", state, "0 to 2");
  }
  for (size_t i = 0; i < 2 * index.copy_count; ++i) {
    if (index.copies[i] >= index.row_count) refuse("copies", index.copies[i], "a row");
  }
}

}  // namespace

const char* name_of(Representation representation) noexcept {
  switch (representation) {
    case Representation::kScan:
      return "scan";
    case Representation::kRank:
      return "rank";
    case Representation::kFull:
      return "full";
  }
  return "unknown";
}

IndexHeader header_of(const SearchIndex& index) noexcept {
  IndexHeader header = {};
  header.magic = kIndexMagic;
  header.version = kIndexVersion;
  header.representation = static_cast<uint32_t>(index.representation);
  header.dims = static_cast<uint32_t>(index.dims);
  header.row_count = static_cast<uint32_t>(index.row_count);
  header.slot_count = static_cast<uint32_t>(index.slot_count);
  header.rank1 = static_cast<uint32_t>(index.rank1);
  header.rank2 = static_cast<uint32_t>(index.rank2);
  header.copy_count = static_cast<uint32_t>(index.copy_count);
  header.removed_count = static_cast<uint32_t>(index.removed_count);
  header.safe_scale = index.safe_scale ? 1 : 0;
  header.step = index.step;
  header.tail_mean = index.tail_mean;
  header.screened = index.screened == index.rank1 ? 0 : static_cast<uint32_t>(index.screened);
  header.scale = index.scale;
  header.rows_hash = index.rows_hash;
  return header;
}

size_t index_bytes(const IndexHeader& header) {
  check_header(header);
  SearchIndex sizes;
  return lay_out(header, nullptr, sizes);
}

SearchIndex view_index(const uint8_t* bytes, size_t size, MatrixView<const float> rows) {
  IndexHeader header;
  if (size < sizeof header) fail(Status::kInput, "search index: %zu bytes are no header; build it again", size);
  std::memcpy(&header, bytes, sizeof header);
  const size_t expected = index_bytes(header);
  if (size != expected) {
    fail(Status::kInput, "search index: has %zu bytes, expected %zu; build it again", size, expected);
  }
  if (rows.rows != header.row_count || rows.columns != header.dims || rows.stride != header.dims) {
    fail(Status::kInput, "search index: made for %u x %u rows, the memory bank is %zu x %zu; build it again",
         header.row_count, header.dims, rows.rows, rows.columns);
  }
  SearchIndex index;
  lay_out(header, bytes, index);
  index.rows = rows;
  check_numbers(index);
  check_rows_named(index);
  return index;
}

uint64_t hash_rows(MatrixView<const float> rows, uint64_t seed) noexcept {
  // Row by row in four independent chains: for telling rows apart, not for defence.
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < rows.rows; ++i) {
    uint64_t chains[4] = {seed, seed + 1, seed + 2, seed + 3};
    const float* row = rows.row(i);
    for (size_t k = 0; k < rows.columns; ++k) {
      uint32_t bits;
      std::memcpy(&bits, row + k, sizeof bits);
      uint64_t& chain = chains[k % 4];
      chain = (chain ^ bits) * kMultiplier;
      chain ^= chain >> 29;
    }
    for (const uint64_t chain : chains) {
      seed = (seed ^ chain) * kMultiplier;
      seed ^= seed >> 32;
    }
  }
  return seed;
}

void check_made_for(const SearchIndex& index) {
  if (hash_rows(index.rows) != index.rows_hash) {
    fail(Status::kInput, "search index: made for other rows than these %zu x %zu; build it again", index.rows.rows,
         index.rows.columns);
  }
}

Buffer<uint8_t> new_index(const IndexHeader& header, Memory& memory) {
  Buffer<uint8_t> bytes(memory, index_bytes(header), "search index");
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

}  // namespace onceover
