#include "metrics/state_file.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"

namespace onceover {
namespace {

constexpr uint8_t kMagic[8] = {0x89, 'O', 'O', 'S', '\r', '\n', 0x1a, '\n'};  // text-mode transfer breaks it
constexpr uint32_t kVersion = 1;
constexpr uint32_t kDense = UINT32_MAX;
constexpr size_t kCodes = 65536;

class Output {
 public:
  template <typename T>
  void put(T value) {
    for (size_t i = 0; i < sizeof value; ++i) bytes_.push_back(static_cast<uint8_t>(uint64_t{value} >> (8 * i)));
  }
  void put_bytes(const uint8_t* data, size_t size) { bytes_.insert(bytes_.end(), data, data + size); }
  std::vector<uint8_t>& bytes() { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

class Input {
 public:
  Input(const uint8_t* bytes, size_t size) : at_(bytes), end_(bytes + size) {}
  template <typename T>
  T get() {
    const uint8_t* from = get_bytes(sizeof(T));
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t{from[i]} << (8 * i);
    return static_cast<T>(value);
  }
  const uint8_t* get_bytes(size_t size) {
    if (static_cast<size_t>(end_ - at_) < size) refuse("it ends too early");
    return std::exchange(at_, at_ + size);
  }
  // A count of things of `size` bytes each that are still to come.
  template <typename T>
  size_t get_count(size_t size) {
    const uint64_t count = get<T>();
    if (count > static_cast<size_t>(end_ - at_) / size) refuse("it ends too early");
    return static_cast<size_t>(count);
  }
  void expect(bool holds, const char* what) {
    if (!holds) refuse(what);
  }
  void expect_end() { expect(at_ == end_, "something follows its end"); }
  [[noreturn]] static void refuse(const char* why) {
    fail(Status::kInput, "these bytes are no intact segmentation metrics: %s; gather them again", why);
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

void put_entries(Output& out, const WeightedKeys& keys) {
  std::vector<WeightedKey> entries;
  keys.append_to(entries);
  std::sort(entries.begin(), entries.end());
  for (const WeightedKey entry : entries) out.put(entry);
}

void get_entries(Input& in, size_t count, WeightedKeys& keys) {
  WeightedKey last = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto entry = in.get<uint64_t>();
    in.expect(entry >= last && static_cast<uint32_t>(entry) > 0, "its anomalous pixels are in no order");
    keys.add(last = entry);
  }
}

void put_page(Output& out, const KeyCounter& normals, size_t page, uint64_t total) {
  out.put(static_cast<uint32_t>(page));
  if (total < KeyCounter::kDenseLows) {
    std::vector<uint16_t> lows;
    normals.read_lows(page, lows);
    out.put(static_cast<uint32_t>(total));
    for (const uint16_t low : lows) out.put(low);
    return;
  }
  std::vector<uint8_t> scratch;
  PageCounts counts;
  normals.read_page(page, scratch, counts);
  out.put(kDense);
  out.put(static_cast<uint32_t>(counts.extras.size()));
  out.put_bytes(counts.counts, kPageKeys);
  for (const PageCounts::Extra& extra : counts.extras) {
    out.put(extra.low);
    out.put(extra.count);
  }
}

void get_page(Input& in, uint32_t page, uint32_t keys_end, KeyCounter& normals) {
  const auto number = in.get<uint32_t>();
  if (number == kDense) {
    const size_t extras = in.get_count<uint32_t>(12);
    const uint8_t* counts = in.get_bytes(kPageKeys);
    uint64_t total = 0;
    for (uint32_t low = 0; low < kPageKeys; ++low) {
      if (counts[low] == 0) continue;
      in.expect((page << kLowBits | low) <= keys_end, "a score of its pages is impossible");
      normals.add_times(page << kLowBits | low, counts[low]);
      total += counts[low];
    }
    uint32_t next_low = 0;
    for (size_t i = 0; i < extras; ++i) {
      const auto low = in.get<uint32_t>();
      const auto count = in.get<uint64_t>();
      in.expect(low >= next_low && low < kPageKeys && count > 0 && count % 256 == 0 && count < uint64_t{1} << 48,
                "an extra count of its pages is impossible");
      normals.add_times(page << kLowBits | low, count);
      total += count;
      next_low = low + 1;
    }
    in.expect(total >= KeyCounter::kDenseLows, "the size of a page is impossible");
    return;
  }
  in.expect(number > 0 && number < KeyCounter::kDenseLows, "the size of a page is impossible");
  std::vector<uint32_t> keys(number);
  uint32_t last = 0;
  for (uint32_t& key : keys) {
    const uint32_t low = in.get<uint16_t>();
    in.expect(low >= last && low < kPageKeys, "the scores of a page are in no order");
    key = page << kLowBits | (last = low);
    in.expect(key <= keys_end, "a score of its pages is impossible");
  }
  normals.add(keys.data(), keys.size());
}

void put_codes(Output& out, const std::vector<uint64_t>& codes) {
  for (size_t code = 0; code < codes.size(); ++code) {
    if (codes[code] == 0) continue;
    out.put(static_cast<uint32_t>(code));
    out.put(codes[code]);
  }
}

void get_codes(Input& in, size_t count, std::vector<uint64_t>& codes) {
  if (count > 0) codes.resize(kCodes);
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t code = in.get<uint32_t>();
    const auto times = in.get<uint64_t>();
    in.expect(code >= next && code < kCodes && times > 0 && times < uint64_t{1} << 48, "its codes are in no order");
    codes[code] = times;
    next = code + 1;
  }
}

}  // namespace

class StateFile {
 public:
  static std::vector<uint8_t> write(SegmentationState& state) {
    const KeyCounter& normals = state.settled_normals();
    const auto used = [](const std::vector<uint64_t>& codes) {
      return static_cast<uint64_t>(codes.size()) -
             static_cast<uint64_t>(std::count(codes.begin(), codes.end(), uint64_t{0}));
    };
    uint64_t pages = 0;
    for (size_t page = 0; page < kPages; ++page) pages += normals.is_empty(page) ? 0 : 1;
    Output out;
    out.put_bytes(kMagic, sizeof kMagic);
    out.put(kVersion);
    out.put(static_cast<uint32_t>(state.connectivity()));
    out.put(static_cast<uint32_t>(state.dropped_bits_));
    out.put(static_cast<uint32_t>(state.groups_.size()));
    out.put(static_cast<uint64_t>(state.page_budget_bytes_));
    out.put(state.images_);
    out.put(pages);
    out.put(used(state.half_codes_));
    out.put(used(state.whole_codes_));
    for (const DefectGroup& group : state.groups_) {
      out.put(group.regions);
      out.put(group.channels);
      out.put(static_cast<uint64_t>(group.pixels.size()));
      out.put(static_cast<uint64_t>(group.channel_pixels.size()));
      put_entries(out, group.pixels);
      put_entries(out, group.channel_pixels);
    }
    for (size_t page = 0; page < kPages; ++page) {
      if (!normals.is_empty(page)) put_page(out, normals, page, normals.page_total(page, state.table()));
    }
    put_codes(out, state.half_codes_);
    put_codes(out, state.whole_codes_);
    const Digest digest = sha256(out.bytes().data(), out.bytes().size());
    out.put_bytes(digest.data(), digest.size());
    return std::move(out.bytes());
  }

  static SegmentationState read(const uint8_t* bytes, size_t size, const KernelTable& table) {
    Input header(bytes, size);
    header.expect(std::memcmp(header.get_bytes(sizeof kMagic), kMagic, sizeof kMagic) == 0, "they begin otherwise");
    const auto version = header.get<uint32_t>();
    if (version != kVersion) {
      fail(Status::kUnsupported, "segmentation metrics of version %u; this onceover reads version %u", version,
           kVersion);
    }
    header.expect(size > sizeof(Digest), "it ends too early");
    const size_t hashed = size - sizeof(Digest);
    const Digest digest = sha256(bytes, hashed);
    header.expect(std::memcmp(digest.data(), bytes + hashed, sizeof digest) == 0, "the checksum differs");
    Input in(bytes, hashed);
    in.get_bytes(sizeof kMagic + sizeof version);
    const auto connectivity = in.get<uint32_t>(), dropped_bits = in.get<uint32_t>(), groups = in.get<uint32_t>();
    const auto budget = in.get<uint64_t>();
    in.expect((connectivity == 4 || connectivity == 8) && dropped_bits <= SegmentationState::kMaxDroppedBits &&
                  groups <= SegmentationState::kMaxGroups &&
                  (budget == 0 || budget >= SegmentationState::kMinBudgetBytes),
              "its settings are impossible");
    SegmentationState state(static_cast<int>(connectivity), static_cast<size_t>(budget), table);
    state.dropped_bits_ = static_cast<int>(dropped_bits);
    state.images_ = in.get<uint64_t>();
    const size_t pages = in.get_count<uint64_t>(10);
    const size_t half_codes = in.get_count<uint64_t>(12), whole_codes = in.get_count<uint64_t>(12);
    state.groups_.resize(groups);
    for (DefectGroup& group : state.groups_) {
      group.regions = in.get<uint64_t>();
      group.channels = in.get<uint64_t>();
      const size_t pixels = in.get_count<uint64_t>(8), channel_pixels = in.get_count<uint64_t>(8);
      in.expect(group.regions <= pixels && (group.regions > 0) == (pixels > 0) && group.channels <= channel_pixels,
                "it has more regions than pixels");
      get_entries(in, pixels, group.pixels);
      get_entries(in, channel_pixels, group.channel_pixels);
    }
    size_t next_page = 0;
    for (size_t i = 0; i < pages; ++i) {
      const auto page = in.get<uint32_t>();
      in.expect(page >= next_page && page < kPages >> std::min<uint32_t>(dropped_bits, 17),
                "its pages are in no order");
      get_page(in, page, UINT32_MAX >> dropped_bits, state.normals_);
      next_page = size_t{page} + 1;
    }
    get_codes(in, half_codes, state.half_codes_);
    get_codes(in, whole_codes, state.whole_codes_);
    in.expect_end();
    return state;
  }
};

std::vector<uint8_t> write_state(SegmentationState& state) { return StateFile::write(state); }

SegmentationState read_state(const uint8_t* bytes, size_t size, const KernelTable& table) {
  return StateFile::read(bytes, size, table);
}

}  // namespace onceover
