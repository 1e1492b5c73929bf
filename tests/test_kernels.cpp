// Kernels: every instruction set returns the bits of scalar, scalar follows kernel_table.h (written here a second
// time), scan_f32 keeps its error bound; dispatch lists, forces and refuses; the coreset's contract.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernel_tables.h"
#include "scoring/coreset.h"

using namespace onceover;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<size_t> kDims = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 96, 128, 200, 384};

enum class Values { kUnit, kOffset, kDenormal, kHugeRange, kDuplicates };

std::vector<float> random_rows(size_t rows, size_t dims, Values values, uint32_t seed) {
  std::mt19937 bits(seed);
  const auto uniform = [&] { return static_cast<float>(bits() >> 8) / 8388608.0f - 1.0f; };  // [−1, 1)
  std::vector<float> out(rows * dims);
  for (float& value : out) {
    value = uniform();
    if (values == Values::kOffset) value += 1000;
    if (values == Values::kDenormal) value *= 1e-40f;
    if (values == Values::kHugeRange) value *= std::pow(10.0f, 19.0f * uniform());
  }
  if (values == Values::kDuplicates) {
    for (size_t i = dims; i < out.size(); ++i) out[i] = out[i % (3 * dims)];  // three different rows at most
  }
  return out;
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// A vector at a multiple of 64, as tiles and codes are.
template <typename T>
class Aligned {
 public:
  explicit Aligned(size_t count) : buffer_(memory_, count, "test") {}
  T* data() { return buffer_.data(); }
  const T* data() const { return buffer_.data(); }
  size_t size() const { return buffer_.size(); }
  T& operator[](size_t i) { return buffer_[i]; }

 private:
  inline static Memory memory_;
  Buffer<T> buffer_;
};

// --- integer kernels ---

// Codes of `blocks` blocks, some slots empty, extremes among them.
struct Bank {
  Aligned<int8_t> codes;
  std::vector<int32_t> norms, sums;
  CodeBlocks blocks;

  Bank(size_t block_count, size_t tiles, uint32_t seed, bool extreme, size_t first = 0)
      : codes(block_count * kBlockRows * kTileDims * tiles), norms(block_count * kBlockRows), sums(norms.size()) {
    std::mt19937 bits(seed);
    for (size_t slot = 0; slot < norms.size(); ++slot) {
      const bool empty = bits() % 11 == 0;
      int32_t norm = 0, sum = 0;
      for (size_t j = 0; j < kTileDims * tiles; ++j) {
        int32_t code = static_cast<int32_t>(bits() % 255) - 127;
        if (extreme) code = bits() % 2 == 0 ? 127 : -127;
        if (empty) code = 0;
        codes[at(slot, j, tiles)] = static_cast<int8_t>(code);
        if (j < first) continue;
        norm += code * code;
        sum += code;
      }
      norms[slot] = empty ? kEmptySlotNorm : norm / 4 * 2;
      sums[slot] = sum;
    }
    blocks = {codes.data(), norms.data(), sums.data(), tiles, first};
  }

  static size_t at(size_t slot, size_t j, size_t tiles) {
    return (slot / 16 * tiles + j / kTileDims) * kTileBytes + slot % 16 * kTileDims + j % kTileDims;
  }
  int32_t code(size_t slot, size_t j) { return codes[at(slot, j, blocks.tiles)]; }
};

// Sixteen queries' codes, as plain numbers and as the tile that a table wants.
struct Queries {
  size_t dims;
  std::vector<int32_t> codes;  // (16, dims)
  std::vector<int32_t> shifts = std::vector<int32_t>(kQueryLanes);

  Queries(size_t tiles, int32_t limit, uint32_t seed, bool extreme) : dims(tiles * kTileDims), codes(16 * dims) {
    std::mt19937 bits(seed);
    for (int32_t& code : codes) {
      code = static_cast<int32_t>(bits() % static_cast<uint32_t>(2 * limit + 1)) - limit;
      if (extreme) code = bits() % 2 == 0 ? limit : -limit;
    }
    for (int32_t& shift : shifts) shift = static_cast<int32_t>(bits() % 4);
  }
  void fill(const KernelTable& table, Aligned<int8_t>& tile) const {
    for (size_t lane = 0; lane < kQueryLanes; ++lane) {
      for (size_t j = 0; j < dims; ++j) {
        const size_t word = table.word_bytes;
        tile[(j / word * kQueryLanes + lane) * word + j % word] =
            static_cast<int8_t>(codes[lane * dims + j] + table.query_offset);
      }
    }
  }
};

void test_screen_and_hits_are_the_scores_of_the_contract() {
  struct Shape {
    size_t tiles, first;
  };
  for (const KernelTable* table : tables_under_test()) {
    for (const auto& [tiles, first] : std::vector<Shape>{{1, 0},
                                                         {1, 16},
                                                         {1, 32},
                                                         {1, 48},
                                                         {2, 0},
                                                         {2, 32},
                                                         {2, 64},
                                                         {2, 112},
                                                         {3, 0},
                                                         {3, 64},
                                                         {5, 0},
                                                         {5, 144}}) {
      if (first % table->screen_unit != 0) continue;
      for (const bool extreme : {false, true}) {
        const size_t block_count = 5, tile_count = 3;
        Bank bank(block_count, tiles, 1, extreme, first);
        std::vector<Queries> queries;
        std::vector<Aligned<int8_t>> packed;
        for (size_t t = 0; t < tile_count; ++t) {
          queries.emplace_back(tiles, table->query_limit, 10 + static_cast<uint32_t>(t), extreme);
          packed.emplace_back(tiles * kTileBytes);
          queries[t].fill(*table, packed[t]);
        }
        std::vector<int64_t> scores;  // (tile, slot, lane)
        for (size_t t = 0; t < tile_count; ++t) {
          for (size_t slot = 0; slot < block_count * kBlockRows; ++slot) {
            for (size_t lane = 0; lane < kQueryLanes; ++lane) {
              int64_t dot = 0;
              for (size_t j = bank.blocks.first; j < queries[t].dims; ++j)
                dot += queries[t].codes[lane * queries[t].dims + j] * bank.code(slot, j);
              const int32_t shift = t == 1 ? queries[t].shifts[lane] : 0;
              scores.push_back(dot * (int64_t{1} << shift) - (bank.norms[slot] >> table->unit_shift));
            }
          }
        }
        for (const size_t count : {1, 2, 3}) {
          std::vector<QueryTile> list;
          std::vector<std::vector<int32_t>> maxima(count, std::vector<int32_t>(block_count * kQueryLanes));
          std::vector<int32_t*> to;
          for (size_t t = 0; t < count; ++t) {
            list.push_back({packed[t].data(), t == 1 ? queries[t].shifts.data() : nullptr});
            to.push_back(maxima[t].data());
          }
          table->screen_i8(bank.blocks, block_count, list.data(), count, to.data());
          for (size_t t = 0; t < count; ++t) {
            const auto score = [&](size_t slot, size_t lane) {
              return scores[(t * block_count * kBlockRows + slot) * kQueryLanes + lane];
            };
            for (size_t block = 0; block < block_count; ++block) {
              for (size_t lane = 0; lane < kQueryLanes; ++lane) {
                int64_t best = INT64_MIN;
                for (size_t row = 0; row < kBlockRows; ++row)
                  best = std::max(best, score(block * kBlockRows + row, lane));
                CHECK(maxima[t][block * kQueryLanes + lane] == best);
              }
            }
            // Hits: thresholds at, above and below the maxima; from all 16 lanes to none take part, blocks in any
            // order.
            std::vector<uint32_t> blocks = {3, 0, 3, 4};
            while (blocks.size() < 2 * kQueryLanes + 2) blocks.push_back(static_cast<uint32_t>(blocks.size() % 5));
            std::vector<int32_t> thresholds(blocks.size() * kQueryLanes);
            for (size_t i = 0; i < thresholds.size(); ++i) {
              const size_t block = i / kQueryLanes, lane = i % kQueryLanes;
              const int32_t maximum = maxima[t][blocks[block] * kQueryLanes + lane];
              const bool takes_part = (5 * lane + block) % kQueryLanes >= block / 2;
              thresholds[i] = !takes_part ? kNoHit : i % 5 == 0 ? maximum : i % 5 == 1 ? maximum + 1 : maximum - 20000;
            }
            std::vector<uint16_t> hits(blocks.size() * kBlockRows);
            table->hit_rows_i8(bank.blocks, list[t], blocks.data(), blocks.size(), thresholds.data(), hits.data());
            for (size_t i = 0; i < hits.size(); ++i) {
              for (size_t lane = 0; lane < kQueryLanes; ++lane) {
                const bool expected =
                    score(blocks[i / 32] * kBlockRows + i % 32, lane) >= thresholds[i / 32 * 16 + lane];
                CHECK((hits[i] >> lane & 1) == (expected ? 1 : 0));
              }
            }
          }
        }
      }
    }
  }
}

void test_dot_products_are_exact() {
  for (const KernelTable* table : tables_under_test()) {
    for (const size_t tiles : {1, 2, 6}) {
      for (const size_t rows : {16, 32, 48}) {
        for (const bool extreme : {false, true}) {
          Aligned<int8_t> codes(rows * tiles * kTileDims);
          std::mt19937 bits(7);
          for (size_t i = 0; i < codes.size(); ++i) {
            codes[i] = static_cast<int8_t>(extreme ? (bits() % 2 == 0 ? 127 : -127)
                                                   : static_cast<int32_t>(bits() % 255) - 127);
          }
          const Queries high(tiles, table->query_limit, 8, extreme);
          Queries low(tiles, table->query_limit, 9, extreme);
          for (int32_t& code : low.codes) code -= extreme && code < 0 ? 1 : 0;  // as quantize_f32 makes them
          Aligned<int8_t> high_tile(tiles * kTileBytes), low_tile(tiles * kTileBytes);
          high.fill(*table, high_tile);
          low.fill(*table, low_tile);
          Aligned<int32_t> high_sums(rows * 16), low_sums(rows * 16);
          table->dot_i8(codes.data(), rows, tiles, high_tile.data(), low_tile.data(), high_sums.data(),
                        low_sums.data());
          for (size_t row = 0; row < rows; ++row) {
            for (size_t lane = 0; lane < kQueryLanes; ++lane) {
              int64_t high_sum = 0, low_sum = 0;
              for (size_t j = 0; j < tiles * kTileDims; ++j) {
                const int64_t code = codes[Bank::at(row, j, tiles)];
                high_sum += (high.codes[lane * high.dims + j] + table->query_offset) * code;
                low_sum += (low.codes[lane * low.dims + j] + table->query_offset) * code;
              }
              CHECK(high_sums[row * 16 + lane] == high_sum && low_sums[row * 16 + lane] == low_sum);
            }
          }
        }
      }
    }
  }
}

// --- portable kernels: the same bits from each table ---

void test_every_table_codes_queries_alike() {
  const KernelTable& scalar = kernels_named("scalar");
  for (const KernelTable* table : tables_under_test()) {
    KernelTable like = scalar;  // scalar, told to make the codes that this table wants
    like.query_limit = table->query_limit, like.query_offset = table->query_offset, like.word_bytes = table->word_bytes;
    for (const size_t dims : {64, 128, 192}) {
      const std::vector<float> x = random_rows(1, dims, Values::kUnit, 20);
      const std::vector<float> mean = random_rows(1, dims, Values::kOffset, 21);
      for (const size_t used : {size_t{1}, size_t{15}, size_t{17}, dims}) {
        std::vector<float> expected(used), got(used);
        CHECK(scalar.center_f32(x.data(), mean.data(), used, expected.data()) ==
              table->center_f32(x.data(), mean.data(), used, got.data()));
        CHECK(same_bits(expected, got));
      }
      std::vector<float> poisoned = x;
      poisoned[dims - 1] = std::nanf("");
      std::vector<float> out(dims);
      CHECK(table->center_f32(poisoned.data(), mean.data(), dims, out.data()) >= 0x7f800000u);
      poisoned[dims - 1] = -kInfinity;
      CHECK(table->center_f32(poisoned.data(), mean.data(), dims, out.data()) == 0x7f800000u);

      const int32_t base = 2 * table->query_limit + 2, largest = (base + 1) * table->query_limit;
      const float step = 1.0f / static_cast<float>(largest);
      std::vector<int8_t> high(dims), low(dims), high_expected(dims), low_expected(dims);
      const PlaneSums sums = table->quantize_f32(x.data(), dims, step, *table, high.data(), low.data());
      const PlaneSums sums_expected =
          like.quantize_f32(x.data(), dims, step, like, high_expected.data(), low_expected.data());
      CHECK(same_bits(high, high_expected) && same_bits(low, low_expected));
      CHECK(sums.squares == sums_expected.squares && sums.error == sums_expected.error);
      double squares = 0;
      for (size_t j = 0; j < dims; ++j) {
        const auto code = [&](int8_t byte) {
          return (table->query_offset == 0 ? int32_t{byte} : int32_t{static_cast<uint8_t>(byte)}) - table->query_offset;
        };
        const int32_t whole = base * code(high[j]) + code(low[j]);
        CHECK(std::abs(code(high[j])) <= table->query_limit && std::abs(code(low[j])) <= table->query_limit + 1);
        CHECK(whole == static_cast<int32_t>(std::lrint(x[j] * (1 / step))));
        squares += double{1} * whole * whole;
      }
      CHECK(sums.squares == squares);

      std::vector<int8_t> plane(16 * dims), tiles(16 * dims), tiles_expected(16 * dims);
      for (size_t i = 0; i < plane.size(); ++i) plane[i] = static_cast<int8_t>(i * 37);
      table->pack_tiles(plane.data(), dims, table->word_bytes, tiles.data());
      for (size_t lane = 0; lane < 16; ++lane) {
        for (size_t j = 0; j < dims; ++j) {
          const size_t word = table->word_bytes;
          tiles_expected[(j / word * 16 + lane) * word + j % word] = plane[lane * dims + j];
        }
      }
      CHECK(same_bits(tiles, tiles_expected));

      const std::vector<float> z = random_rows(dims, 16, Values::kUnit, 22);
      std::vector<float> steps(16, 1.0f / 100);
      steps[3] = 1.0f / 400, steps[9] = 1.0f / 30;  // lane 3 clamps
      std::vector<int32_t> norms(16), norms_expected(16);
      std::vector<float> errors(16), errors_expected(16);
      table->encode_lanes(z.data(), dims, steps.data(), *table, tiles.data(), norms.data(), errors.data());
      like.encode_lanes(z.data(), dims, steps.data(), like, tiles_expected.data(), norms_expected.data(),
                        errors_expected.data());
      CHECK(same_bits(tiles, tiles_expected) && same_bits(norms, norms_expected) && same_bits(errors, errors_expected));

      std::vector<float> turned(16 * dims);
      table->transpose_lanes(z.data(), dims, turned.data());
      for (size_t i = 0; i < turned.size(); ++i) CHECK(turned[i] == z[i % dims * 16 + i / dims]);

      std::vector<int32_t> high_sums(dims * 16), low_sums(dims * 16), offsets(dims);
      std::mt19937 bits(23);
      for (int32_t& sum : high_sums) sum = static_cast<int32_t>(bits() % 40000000) - 20000000;
      for (int32_t& sum : low_sums) sum = static_cast<int32_t>(bits() % 40000000) - 20000000;
      for (int32_t& sum : offsets) sum = static_cast<int32_t>(bits() % 40000) - 20000;
      std::vector<double> scales(16, 1.7e-6), totals(16, 3), totals_expected(16, 3);
      std::vector<float> combined(dims * 16), combined_expected(dims * 16);
      table->combine_planes(high_sums.data(), low_sums.data(), offsets.data(), dims, 256, scales.data(),
                            combined.data(), totals.data());
      scalar.combine_planes(high_sums.data(), low_sums.data(), offsets.data(), dims, 256, scales.data(),
                            combined_expected.data(), totals_expected.data());
      CHECK(same_bits(combined, combined_expected) && same_bits(totals, totals_expected));
      const double whole = 256.0 * (high_sums[5] - offsets[0]) + (low_sums[5] - offsets[0]);
      CHECK(combined[5] == static_cast<float>(whole * 1.7e-6));
    }
  }
}

void test_every_table_finds_the_same_blocks() {
  const KernelTable& scalar = kernels_named("scalar");
  const size_t block_count = 100;
  std::mt19937 bits(30);
  std::vector<int32_t> maxima(block_count * 16);
  for (int32_t& value : maxima) value = static_cast<int32_t>(bits() % 200) - 100;
  std::vector<float> errors(block_count);
  for (float& error : errors) error = static_cast<float>(bits() % 100) / 100;
  LaneBounds bounds;
  for (size_t lane = 0; lane < 16; ++lane) {
    bounds.screen_base[lane] = lane == 5 ? kInfinity : 200;
    bounds.base[lane] = lane == 5 ? kInfinity : 300 - 20 * static_cast<float>(lane);
    bounds.curve[lane] = lane == 7 ? 0 : 1;
    bounds.reach[lane] = lane == 6 ? kInfinity : 10;  // lane 6: nothing is known yet, every block may hold the nearest
  }
  for (const KernelTable* table : tables_under_test()) {
    std::vector<int32_t> best(16), block(16), best_expected(16), block_expected(16);
    table->best_blocks(maxima.data(), block_count, best.data(), block.data());
    scalar.best_blocks(maxima.data(), block_count, best_expected.data(), block_expected.data());
    CHECK(best == best_expected && block == block_expected);
    for (size_t lane = 0; lane < 16; ++lane) {
      size_t first = 0;
      for (size_t b = 0; b < block_count; ++b) {
        if (maxima[b * 16 + lane] > maxima[first * 16 + lane]) first = b;
      }
      CHECK(static_cast<size_t>(block[lane]) == first && best[lane] == maxima[first * 16 + lane]);
    }
    for (const bool without_lane_6 : {true, false}) {
      bounds.reach[6] = without_lane_6 ? 10 : kInfinity;
      size_t position = 0, total = 0;
      while (position < block_count) {
        std::vector<uint32_t> found(7), found_expected(7);
        std::vector<int32_t> thresholds(8 * 16), thresholds_expected(8 * 16);
        size_t other = position;
        const size_t count = table->find_hits(maxima.data(), errors.data(), &position, block_count, bounds, 7,
                                              found.data(), thresholds.data());
        const size_t expected = scalar.find_hits(maxima.data(), errors.data(), &other, block_count, bounds, 7,
                                                 found_expected.data(), thresholds_expected.data());
        CHECK(count == expected && position == other && found == found_expected);
        for (size_t i = 0; i < count; ++i) {  // no lane's base, but its screen_base decides
          size_t reaching = 0;
          for (size_t lane = 0; lane < 16; ++lane) {
            const double reach = double{bounds.reach[lane]} + double{errors[found[i]]};
            const double bound = double{bounds.screen_base[lane]} - double{bounds.curve[lane]} * reach * reach;
            reaching += double{static_cast<float>(maxima[found[i] * 16 + lane])} >= bound - 1.01 ? 1 : 0;
          }
          CHECK(reaching > 0);
        }
        for (size_t i = 0; i < count * 16; ++i) {
          CHECK(thresholds[i] == thresholds_expected[i]);
          const size_t lane = i % 16;
          const double reach = double{bounds.reach[lane]} + double{errors[found[i / 16]]};
          const double bound = double{bounds.base[lane]} - double{bounds.curve[lane]} * reach * reach;
          const double least = double{bounds.screen_base[lane]} - double{bounds.curve[lane]} * reach * reach;
          const double maximum = maxima[found[i / 16] * 16 + lane];
          if (lane == 5 || maximum < least - 1.01) CHECK(thresholds[i] == kNoHit);
          if (lane == 6 && !without_lane_6) CHECK(thresholds[i] == -1073741760);
          if (lane < 5 && maximum >= least) CHECK(std::fabs(thresholds[i] - bound) <= 1.01);
        }
        total += count;
      }
      CHECK(without_lane_6 ? total < block_count : total == block_count);
    }
  }
}

void test_every_table_refines_alike_and_within_rounding_of_float64() {
  const KernelTable& scalar = kernels_named("scalar");
  for (const size_t tiles : {1, 2}) {
    for (const size_t more : {0, 16, 64}) {
      const size_t rank1 = tiles * kTileDims, rank2 = rank1 + more, slots = 3 * kBlockRows;
      Bank bank(3, tiles, 40, false);
      std::mt19937 bits(41);
      std::vector<int8_t> refine(slots * rank2);
      for (int8_t& fine : refine) fine = static_cast<int8_t>(bits() % 255 - 127);
      const std::vector<float> z = random_rows(16, rank2, Values::kUnit, 42);
      std::vector<float> weights(rank2, 1.0f / 32768);
      for (size_t j = rank1; j < rank2; ++j) weights[j] = 1.0f / 100;
      weights[rank1 - 1] = 0;
      std::vector<uint32_t> pairs;
      for (uint32_t slot = 0; slot < slots; slot += 5) pairs.push_back(slot * 16 + slot % 16);
      pairs.pop_back();  // an odd number of them
      std::vector<float> expected(pairs.size());
      scalar.refine_rows(z.data(), weights.data(), bank.blocks, refine.data(), rank2, pairs.data(), pairs.size(),
                         expected.data());
      for (size_t i = 0; i < pairs.size(); ++i) {
        double sum = 0;
        for (size_t j = 0; j < rank2; ++j) {
          const size_t slot = pairs[i] / 16;
          const double units =
              j < rank1 ? 256 * bank.code(slot, j) + refine[slot * rank2 + j] : refine[slot * rank2 + j];
          const double difference = double{z[pairs[i] % 16 * rank2 + j]} - double{weights[j]} * units;
          sum += difference * difference;
        }
        CHECK(std::fabs(double{expected[i]} - sum) <= 1e-5 * sum);
      }
      for (const KernelTable* table : tables_under_test()) {
        std::vector<float> got(pairs.size());
        table->refine_rows(z.data(), weights.data(), bank.blocks, refine.data(), rank2, pairs.data(), pairs.size(),
                           got.data());
        CHECK(same_bits(got, expected));
      }
    }
  }
}

// The contract of kernel_table.h written a second time: zero-padded to 16, partial by partial.
template <typename T>
T squared_by_contract(const float* a, const float* b, size_t dims) {
  std::vector<T> partial(16, 0);
  for (size_t j = 0; j < 16; ++j) {
    for (size_t i = j; i < dims; i += 16) {
      const volatile T difference = T{a[i]} - T{b[i]};  // volatile: one rounding per operation, whatever the flags
      const volatile T square = difference * difference;
      partial[j] += square;
    }
  }
  for (size_t half : {8, 4, 2, 1}) {
    for (size_t j = 0; j < half; ++j) partial[j] = partial[j] + partial[j + half];
  }
  return partial[0];
}

void test_squared_distances_follow_the_contract_bit_by_bit() {
  for (const Values values : {Values::kUnit, Values::kOffset, Values::kDenormal, Values::kHugeRange}) {
    for (const size_t dims : kDims) {
      const std::vector<float> a = random_rows(1, dims, values, 5), b = random_rows(1, dims, values, 6);
      for (const KernelTable* table : tables_under_test()) {
        CHECK(table->squared_f32(a.data(), b.data(), dims) == squared_by_contract<float>(a.data(), b.data(), dims));
        CHECK(table->squared_f64(a.data(), b.data(), dims) == squared_by_contract<double>(a.data(), b.data(), dims));
        CHECK(table->squared_f32(a.data(), a.data(), dims) == 0);
      }
    }
  }
}

void test_every_table_returns_the_bits_of_scalar_on_coreset_steps() {
  for (const Values values : {Values::kUnit, Values::kOffset, Values::kDenormal, Values::kDuplicates}) {
    for (const size_t dims : kDims) {
      for (const size_t rows : {1, 2, 5, 203}) {
        const std::vector<float> points = random_rows(rows, dims, values, 3);
        const std::vector<float> start = random_rows(rows, 1, Values::kUnit, 4);
        for (const KernelTable* table : tables_under_test()) {
          std::vector<float> expected(rows), got(rows);
          for (size_t i = 0; i < rows; ++i) expected[i] = got[i] = std::abs(start[i]) * static_cast<float>(dims);
          const float* center = points.data() + (rows / 2) * dims;
          const size_t far =
              kernels_named("scalar").lower_to_center_f32(points.data(), rows, dims, center, expected.data());
          CHECK(table->lower_to_center_f32(points.data(), rows, dims, center, got.data()) == far);
          CHECK(same_bits(got, expected));
          CHECK(got[rows / 2] == 0);
        }
      }
    }
  }
}

void test_the_scan_keeps_its_error_bound() {
  for (const size_t dims : {1, 2, 17, 64, 200}) {
    for (const size_t tile_count : {1, 2, 3, 4, 5, 6}) {
      const std::vector<float> queries = random_rows(tile_count * 16, dims, Values::kUnit, 50);
      const std::vector<float> rows = random_rows(kPanelRows, dims, Values::kUnit, 51);
      std::vector<float> tiles(tile_count * dims * 16), panel(dims * kPanelRows), start(kPanelRows, 0.25f);
      start[2] = -kInfinity;  // a row that is not there
      for (size_t k = 0; k < dims; ++k) {
        for (size_t q = 0; q < tile_count * 16; ++q) tiles[(q / 16 * dims + k) * 16 + q % 16] = queries[q * dims + k];
        for (size_t row = 0; row < kPanelRows; ++row) panel[k * kPanelRows + row] = rows[row * dims + k];
      }
      for (const KernelTable* table : tables_under_test()) {
        std::vector<float> maxima(tile_count * 16, -kInfinity);
        maxima[3] = 1e6f;  // what was there and is larger stays
        table->scan_f32(tiles.data(), tile_count, dims, panel.data(), start.data(), maxima.data());
        for (size_t q = 0; q < tile_count * 16; ++q) {
          double best = -std::numeric_limits<double>::infinity(), bound = 0;
          for (size_t row = 0; row < kPanelRows; ++row) {
            if (row == 2) continue;
            double score = 0.25, size = 0.25;
            for (size_t k = 0; k < dims; ++k) {
              score += double{queries[q * dims + k]} * double{rows[row * dims + k]};
              size += std::fabs(double{queries[q * dims + k]} * double{rows[row * dims + k]});
            }
            best = std::max(best, score);
            bound = std::max(bound, size * static_cast<double>(dims + 2) * 0x1p-24 * 1.001);
          }
          if (q == 3) best = 1e6;
          CHECK(std::fabs(double{maxima[q]} - best) <= bound);
        }
      }
    }
  }
}

void test_matrix_products_are_the_same_bits() {
  const size_t rows = 7, inner = 33, columns = 48;
  std::vector<double> left(rows * inner), right(inner * columns), start(rows * columns);
  std::mt19937 bits(60);
  for (auto* values : {&left, &right, &start}) {
    for (double& value : *values) value = static_cast<double>(bits()) / 4e9 - 0.5;
  }
  std::vector<double> expected = start;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (size_t k = 0; k < inner; ++k) {
        const volatile double product = right[k * columns + c] * left[r * inner + k];
        sum += product;
      }
      expected[r * columns + c] += sum;
    }
  }
  for (const KernelTable* table : tables_under_test()) {
    std::vector<double> got = start;
    table->multiply_f64(left.data(), inner, right.data(), columns, got.data(), columns, rows, inner, columns);
    CHECK(same_bits(got, expected));
  }
}

void test_products_of_any_width_are_the_same_bits() {
  for (const size_t columns : {1, 16, 37}) {
    const size_t rows = 11, inner = 29, stride = (columns + 15) / 16 * 16;
    const std::vector<float> left = random_rows(rows, inner, Values::kUnit, 61),
                             right = random_rows(inner, stride, Values::kUnit, 62);
    std::vector<float> expected(rows * columns);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) {
        for (size_t k = 0; k < inner; ++k) {
          const volatile float product = right[k * stride + c] * left[r * inner + k];
          expected[r * columns + c] += product;
        }
      }
    }
    for (const KernelTable* table : tables_under_test()) {
      std::vector<float> got(rows * columns + 1, 7.0f);
      table->multiply_f32(left.data(), right.data(), got.data(), rows, inner, columns);
      CHECK(got.back() == 7.0f);  // nothing beyond the end
      got.pop_back();
      CHECK(same_bits(got, expected));
    }
  }
}

void test_axes_are_within_rounding() {
  for (const size_t dims : {1, 16, 37, 128}) {
    const std::vector<float> x = random_rows(1, dims, Values::kUnit, 70), axes = random_rows(4, 128, Values::kUnit, 71);
    for (const KernelTable* table : tables_under_test()) {
      float along[4];
      table->along_axes_f32(x.data(), axes.data(), 128, dims, along);
      for (size_t a = 0; a < 4; ++a) {
        double sum = 0;
        for (size_t k = 0; k < dims; ++k) sum += double{x[k]} * double{axes[a * 128 + k]};
        CHECK(std::fabs(double{along[a]} - sum) < 1e-4);
      }
    }
  }
}

// --- coreset ---

void test_shapes_and_values_are_checked_at_the_door() {
  std::vector<float> bad(64, 1.0f);
  const KernelTable& table = kernels_named("scalar");
  Memory memory;
  CHECK_THROWS(GreedyCoreset({bad.data(), 16, 4}, 16, table, memory), Status::kUsage, "16 rows (0 to 15)");
  CHECK_THROWS(GreedyCoreset({bad.data(), 0, 4}, 0, table, memory), Status::kInput, "0 x 4");
  bad[4 * 9 + 2] = std::nanf("");
  CHECK_THROWS(GreedyCoreset({bad.data(), 16, 4}, 0, table, memory), Status::kInput, "row 9 of 16");
}

// By hand: from 0 the farthest is 20; then 10 (distance 10); then 2 (distance 2, before 1 and 11 at 1); then of 1 and
// 11, both at distance 1, the lower index. 11 remains, at distance 1.
void test_coreset_of_a_line_is_the_one_worked_out_by_hand() {
  const std::vector<float> line = {0, 1, 2, 10, 11, 20};
  for (const KernelTable* table : tables_under_test()) {
    Memory memory;
    GreedyCoreset coreset({line.data(), 6, 1}, 0, *table, memory);
    CHECK(coreset.covering_radius() == kInfinity);  // nothing selected covers nothing
    coreset.select(2);
    coreset.select(3);  // resumes
    CHECK((coreset.selected() == std::vector<uint32_t>{0, 5, 3, 2, 1}));
    CHECK(coreset.covering_radius() == 1);
    coreset.select(100);
    CHECK((coreset.selected() == std::vector<uint32_t>{0, 5, 3, 2, 1, 4}));
    CHECK(coreset.covering_radius() == 0);
  }
}

void test_coreset_stops_when_the_remaining_rows_coincide_with_the_selection() {
  const std::vector<float> points = random_rows(50, 6, Values::kDuplicates, 11);
  for (const KernelTable* table : tables_under_test()) {
    Memory memory;
    GreedyCoreset coreset({points.data(), 50, 6}, 40, *table, memory);
    coreset.select(50);
    CHECK(coreset.selected().size() == 3);
    CHECK(coreset.selected().front() == 40);
  }
}

// --- dispatch ---

void test_dispatch_lists_forces_and_refuses() {
  CHECK(available_kernels().size() >= 1);
  CHECK(std::string(available_kernels().back()->name) == "scalar");
  CHECK_THROWS(kernels_named("avx3"), Status::kUnknownName,
               "'avx3' does not exist; known: amx, avx512vnni, avxvnni, avx2");
  const char* outer = std::getenv("ONCEOVER_ISA");
  const std::string kept = outer == nullptr ? "" : outer;
  setenv("ONCEOVER_ISA", "nonsense", 1);
  CHECK_THROWS(kernels(), Status::kUnknownName, "ONCEOVER_ISA");
  CHECK_THROWS(kernels(), Status::kUnknownName, "scalar");  // again: no silent fall back after the first throw
  setenv("ONCEOVER_ISA", kept.c_str(), 1);
  CHECK(&kernels() == (kept.empty() ? available_kernels().front() : &kernels_named(kept.c_str())));
  if (available_kernels().size() == 1) {
    CHECK_THROWS(kernels_named("avx2"), Status::kUsage, "available here: scalar");
  }
  const char* model = std::getenv("QEMU_CPU");  // an emulated CPU has exactly what its model has
  const std::string best = available_kernels().front()->name;
  if (model != nullptr && std::string(model) == "cortex-a53") CHECK(best == "neon");
  if (model != nullptr && std::string(model) == "cortex-a76") CHECK(best == "neon_dotprod");
  if (model != nullptr && std::string(model) == "max") CHECK(best == "neon_i8mm");
}

}  // namespace

int main() {
  test_screen_and_hits_are_the_scores_of_the_contract();
  test_dot_products_are_exact();
  test_every_table_codes_queries_alike();
  test_every_table_finds_the_same_blocks();
  test_every_table_refines_alike_and_within_rounding_of_float64();
  test_squared_distances_follow_the_contract_bit_by_bit();
  test_every_table_returns_the_bits_of_scalar_on_coreset_steps();
  test_the_scan_keeps_its_error_bound();
  test_matrix_products_are_the_same_bits();
  test_products_of_any_width_are_the_same_bits();
  test_axes_are_within_rounding();
  test_shapes_and_values_are_checked_at_the_door();
  test_coreset_of_a_line_is_the_one_worked_out_by_hand();
  test_coreset_stops_when_the_remaining_rows_coincide_with_the_selection();
  test_dispatch_lists_forces_and_refuses();
  return check::summary("kernels");
}
