// An exact multiset of 32-bit keys in at most 2 bytes per key and a fixed part, fed at memory speed: how often each
// normal score occurred.
//
// A key is cut into its page (upper 17 bits) and its low part (15 bits).
// - Keys of a page with few of them wait in `pending_`, at most kPendingKeys; when it is full they are sorted by page,
//   and put on the shelves: 64 pages to a shelf, the low parts of a page side by side, 2 bytes each. A shelf has a few
//   parts of that kind, so that it is not written anew for each new one.
// - A page with many low parts becomes dense, as soon as the dense pages together take at most 2 bytes per key in them:
//   a table of one byte per key, and behind it a stage of 2 KB where low parts are written one after the other, to be
//   counted when it is full. Counting each at once would miss the cache at almost every key; so the table passes
//   through it once per stage.
// - A byte that overflows is noted in `carries_`, once per 256 equal keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/kernel_table.h"

namespace onceover {

inline constexpr int kLowBits = 15;
inline constexpr size_t kPageKeys = size_t{1} << kLowBits;
inline constexpr size_t kPages = size_t{1} << (32 - kLowBits);

// How often each key of one page occurs: counts[low], and the `extras` of that low beside it.
struct PageCounts {
  struct Extra {
    uint32_t low;
    uint64_t count;
  };
  const uint8_t* counts = nullptr;  // (kPageKeys)
  std::vector<Extra> extras;        // ascending, each low at most once
};

class KeyCounter {
 public:
  static constexpr size_t kStageLows = 1024;
  static constexpr size_t kDenseBytes = kPageKeys + 2 * kStageLows;
  static constexpr size_t kCarryBytes = 56;  // of one carry in both its places
  // What a key in a dense page may take for the table, in 32nds of a byte: 2 bytes less its share of a carry.
  static constexpr size_t kKeyWorth = 64 - kCarryBytes * 32 / 256;
  static constexpr size_t kDenseLows = kDenseBytes * 32 / kKeyWorth + 1;  // from here on a page is dense
  static constexpr size_t kMinDenseLows = kDenseLows / 2;  // from here on it may be, if others have bytes to spare
  static constexpr size_t kPendingKeys = size_t{1} << 19;

  void add(const uint32_t* keys, size_t count);
  // For keys that come in numbers: their pages become dense, whatever is in them.
  void add_times(uint32_t key, uint64_t times);
  // Everything in `other`, which is another counter, with keys shifted right by `shift`.
  void absorb(const KeyCounter& other, int shift);

  uint64_t total() const { return total_; }
  size_t size_bytes() const;

  // Puts what waits into place; what is below sees only that.
  void settle();
  bool is_empty(size_t page) const;
  uint64_t page_total(size_t page, const KernelTable& table) const;
  // `scratch` holds the counts of a page that is not dense; `found` is valid until it or this counter changes.
  void read_page(size_t page, std::vector<uint8_t>& scratch, PageCounts& found) const;
  // Where page_total is below kDenseLows: every low part, ascending.
  void read_lows(size_t page, std::vector<uint16_t>& lows) const;

 private:
  static constexpr size_t kShelfPages = 64;
  static constexpr size_t kSlabPages = 16;
  static constexpr size_t kShelfParts = 4;
  struct ShelfPart {
    std::unique_ptr<uint16_t[]> lows;
    uint32_t starts[kShelfPages + 1] = {};  // of each page's low parts, and the end

    size_t count(size_t i) const { return starts[i + 1] - starts[i]; }  // of the i-th page of the shelf
    const uint16_t* page(size_t i) const { return lows.get() + starts[i]; }
  };
  using Shelf = std::vector<ShelfPart>;
  struct Slab {
    explicit Slab(size_t bytes);
    Slab(Slab&& other) noexcept : data(other.data) { other.data = nullptr; }
    ~Slab();
    uint8_t* data;
  };

  std::vector<std::pair<uint32_t, uint64_t>>::const_iterator first_carry(size_t page) const;
  bool is_dense(size_t page) const { return heads_ != nullptr && heads_[page] != nullptr; }
  uint16_t* stage(size_t page) const;  // of a dense page
  uint8_t* table(size_t page) const { return reinterpret_cast<uint8_t*>(stage(page)) - kPageKeys; }
  void make_dense(size_t page);
  void empty_stage(size_t page);
  void count_lows(size_t page, const uint16_t* lows, size_t count);
  void raise(size_t page, uint32_t low, uint64_t times);
  void shelve_pending();
  // The keys, ordered by page, go to this shelf, beside what is there; full pages become dense. Null: parts are joined.
  void fill_shelf(size_t shelf, const uint32_t* keys, const uint32_t* keys_end);
  size_t shelved(size_t page) const;
  template <typename Take>  // take(lows, count), for each part
  void visit_shelved(size_t page, const Take& take) const;

  uint64_t total_ = 0;
  uint64_t waiting_total_ = 0;  // keys that are pending or on a shelf
  size_t dense_pages_ = 0;
  std::vector<uint32_t> pending_;
  std::vector<Shelf> shelves_;                      // none, or one for kShelfPages pages each
  std::unique_ptr<uint16_t*[]> heads_;              // where a dense page's next low part goes; null until one is dense
  std::vector<Slab> slabs_;                         // tables and stages of dense pages
  size_t slab_used_ = kSlabPages;                   // pages of the last one
  std::unordered_map<uint32_t, uint64_t> carries_;  // key → what its byte does not tell
  std::vector<std::pair<uint32_t, uint64_t>> settled_carries_;  // the same, ascending
};

}  // namespace onceover
