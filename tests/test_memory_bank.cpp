// Exactness of the search, counted: every table, representation and kind of data against a float64 brute force.
//
//     test_memory_bank [results per table [table]]     default 20,000; far fewer under emulation of another CPU
//
// A result is wrong when its row is farther, in float64 by another order of sums than the kernels', than the nearest by
// more than that rounding can explain, or when an equal row of a lower number exists, or when its distance is not the
// float32 next to that row's. Python's test_memory_bank.py covers the rest: adversarial data, changes, files.
#include "scoring/memory_bank.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "base/random.h"
#include "check.h"
#include "kernel_tables.h"

using namespace onceover;

namespace {

using Rows = std::vector<float>;

Rows gaussian(size_t rows, size_t dims, Random& random) {
  Rows out(rows * dims);
  for (float& value : out) value = static_cast<float>(random.normal());
  return out;
}

// Like a network's features: few directions carry most of the variance, some values are cut at 0.
Rows feature_like(size_t rows, size_t dims, Random& random, uint64_t seed) {
  Random mixing(seed);
  const size_t latent = std::max<size_t>(2, dims / 12);
  const Rows directions = gaussian(latent, dims, mixing);
  Rows out(rows * dims);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t l = 0; l < latent; ++l) {
      const double share = random.normal() / static_cast<double>(l + 1);
      for (size_t k = 0; k < dims; ++k) out[i * dims + k] += static_cast<float>(share) * directions[l * dims + k];
    }
    for (size_t k = 0; k < dims; ++k)
      out[i * dims + k] = std::max(0.0f, out[i * dims + k]) + 0.03f * static_cast<float>(random.normal());
  }
  return out;
}

// Tight clusters, copies, rows one unit in the last place apart.
Rows clustered(size_t rows, size_t dims, Random& random, uint64_t seed) {
  Random placing(seed);
  const size_t clusters = 12;
  const Rows centers = gaussian(clusters, dims, placing);
  Rows out(rows * dims);
  for (size_t i = 0; i < rows; ++i) {
    const size_t cluster = random.next() % clusters;
    const double spread = cluster % 3 == 0 ? 1e-3 : 0.2;
    for (size_t k = 0; k < dims; ++k) {
      out[i * dims + k] = centers[cluster * dims + k] + static_cast<float>(spread * random.normal());
    }
    if (i > 3 && random.next() % 8 == 0) {
      std::copy_n(out.begin() + static_cast<std::ptrdiff_t>((random.next() % i) * dims), dims,
                  out.begin() + static_cast<std::ptrdiff_t>(i * dims));
      if (random.next() % 2 == 0) out[i * dims] = std::nextafter(out[i * dims], 2.0f);
    }
  }
  return out;
}

double distance_squared(const float* a, const float* b, size_t dims) {
  double sum = 0;
  for (size_t k = 0; k < dims; ++k) sum += (double{a[k]} - double{b[k]}) * (double{a[k]} - double{b[k]});
  return sum;
}

// How many of the k neighbors of each query are wrong.
size_t count_wrong(const Rows& bank, const Rows& queries, size_t dims, size_t k, const std::vector<float>& distances,
                   const std::vector<uint32_t>& ids, bool tell = true) {
  const size_t rows = bank.size() / dims;
  size_t wrong = 0;
  std::vector<std::pair<double, uint32_t>> all(rows);
  for (size_t q = 0; q < queries.size() / dims; ++q) {
    for (size_t i = 0; i < rows; ++i) {
      all[i] = {distance_squared(queries.data() + q * dims, bank.data() + i * dims, dims), static_cast<uint32_t>(i)};
    }
    const std::vector<std::pair<double, uint32_t>> by_row = all;
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(k, rows)), all.end());
    for (size_t i = 0; i < k; ++i) {
      const uint32_t id = ids[q * k + i];
      const float distance = distances[q * k + i];
      if (i >= rows) {
        wrong += id != kNoRow || !std::isinf(distance);
        continue;
      }
      const bool known = id < rows;
      const double found = known ? by_row[id].first : 0;
      const bool same = known && id == all[i].second;
      // Rows as near as float64 can tell may come in the order of the kernels' sums; equal rows only by number.
      const bool equal_rows =
          known && std::memcmp(bank.data() + id * dims, bank.data() + all[i].second * dims, dims * sizeof(float)) == 0;
      const bool tied = known && std::fabs(found - all[i].first) <= 1e-13 * all[i].first && !equal_rows;
      if (tell && !(same || tied)) {
        std::fprintf(stderr, "query %zu, neighbor %zu: row %u at %.17g, expected row %u at %.17g\n", q, i, id, found,
                     all[i].second, all[i].first);
      }
      const bool right_distance =
          known && std::fabs(double{distance} - std::sqrt(found)) <= 0x1.01p-24 * std::sqrt(found);
      wrong += !(same || tied) || !right_distance;
    }
  }
  return wrong;
}

struct Case {
  const char* name;
  Representation representation;
  size_t rank1, rank2, screened;
};

void test_results_are_those_of_float64(size_t results_per_table, const char* only, bool emulated) {
  const std::vector<Case> cases = {
      {"chosen", Representation::kScan, 0, 0, 0},         {"rank 32/64+64", Representation::kRank, 64, 128, 32},
      {"rank 64+64", Representation::kRank, 64, 128, 64}, {"rank 16/64", Representation::kRank, 64, 64, 16},
      {"full", Representation::kFull, 0, 0, 0},           {"scan", Representation::kScan, 0, 0, 0}};
  const size_t query_count = emulated ? 48 : 208;
  for (const KernelTable* table : tables_under_test()) {
    if (only != nullptr && std::string(table->name) != only) continue;
    size_t results = 0, asked = 0, wrong = 0, screened = 0, round = 0;
    while (results < results_per_table) {
      Random random(round + 1);
      const size_t dims = std::vector<size_t>{128, 96, 160, 65, 200}[round % 5];
      const size_t rows = emulated ? 130 + round % 3 * 70 : 700 + round % 4 * 301;
      for (const int kind : {0, 1, 1, 2}) {
        const Rows bank = kind == 0   ? gaussian(rows, dims, random)
                          : kind == 1 ? feature_like(rows, dims, random, round)
                                      : clustered(rows, dims, random, round);
        Rows queries = kind == 0   ? gaussian(query_count, dims, random)
                       : kind == 1 ? feature_like(query_count, dims, random, round)
                                   : clustered(query_count, dims, random, round);
        for (size_t q = 0; q < query_count; q += 7) {  // some rows of the bank itself, some far out
          if (q % 2 == 0)
            std::copy_n(bank.begin() + static_cast<std::ptrdiff_t>(q % rows * dims), dims,
                        queries.begin() + static_cast<std::ptrdiff_t>(q * dims));
          if (q % 21 == 0)
            for (size_t j = 0; j < dims; ++j) queries[q * dims + j] *= 30;
        }
        const Case& each = cases[(round + static_cast<size_t>(kind)) % cases.size()];
        if (each.rank2 > (dims + 1) / 16 * 16) continue;
        BuildOptions options;
        options.forced = std::strcmp(each.name, "chosen") != 0;
        options.representation = each.representation;
        options.rank1 = each.rank1;
        options.rank2 = each.rank2;
        options.screened = each.screened;
        const MemoryBank memory_bank({bank.data(), rows, dims}, options, *table);
        const size_t k = round % 3 == 2 ? 9 : 1;
        std::vector<float> distances(query_count * k);
        std::vector<uint32_t> ids(query_count * k);
        SearchStats stats;
        memory_bank.search({queries.data(), query_count, dims}, k, distances.data(), ids.data(), 1 + round % 2, stats);
        wrong += count_wrong(bank, queries, dims, k, distances, ids);
        results += query_count * k;
        asked += query_count;
        screened += query_count - stats.scanned_queries - stats.float64_queries;
      }
      ++round;
    }
    std::printf("%s: %zu results of %zu queries, %zu of them screened to the end, %zu wrong\n", table->name, results,
                asked, screened, wrong);
    CHECK(wrong == 0);
    CHECK(screened > 0);
  }
}

void test_the_count_itself_notices_a_wrong_row_and_a_wrong_distance() {
  Random random(5);
  const size_t dims = 20;
  const Rows bank = gaussian(50, dims, random), queries = gaussian(10, dims, random);
  const MemoryBank memory_bank({bank.data(), 50, dims}, {}, kernels_named("scalar"));
  std::vector<float> distances(10);
  std::vector<uint32_t> ids(10);
  SearchStats stats;
  memory_bank.search({queries.data(), 10, dims}, 1, distances.data(), ids.data(), 1, stats);
  CHECK(count_wrong(bank, queries, dims, 1, distances, ids) == 0);
  std::vector<float> off = distances;
  off[4] = std::nextafter(std::nextafter(off[4], 0.0f), 0.0f);
  CHECK(count_wrong(bank, queries, dims, 1, off, ids, false) == 1);
  ids[7] = (ids[7] + 1) % 50;
  CHECK(count_wrong(bank, queries, dims, 1, distances, ids, false) == 1);
}

// One index, searched by every table and split: the same bits.
void test_every_table_and_split_returns_the_same_bits() {
  Random random(6);
  const size_t dims = 150, rows = std::getenv("ONCEOVER_QEMU") != nullptr ? 200 : 900, query_count = 100, k = 5;
  const Rows bank = feature_like(rows, dims, random, 1);
  Rows queries = feature_like(query_count, dims, random, 1);
  queries[3 * dims] = std::nanf("");
  queries[4 * dims + 1] = 1e30f;
  for (const Representation representation : {Representation::kRank, Representation::kFull, Representation::kScan}) {
    BuildOptions options;
    options.forced = true;
    options.representation = representation;
    options.rank1 = 64;
    options.rank2 = 128;
    const MemoryBank built({bank.data(), rows, dims}, options, kernels_named("scalar"));
    std::vector<float> expected(query_count * k);
    std::vector<uint32_t> expected_ids(query_count * k);
    SearchStats stats;
    built.search({queries.data(), query_count, dims}, k, expected.data(), expected_ids.data(), 1, stats);
    CHECK(std::isinf(expected[3 * k]) && expected_ids[3 * k] == kNoRow);
    CHECK(std::isfinite(expected[4 * k]) && expected_ids[4 * k] < rows);
    for (const KernelTable* table : tables_under_test()) {
      const MemoryBank viewed({bank.data(), rows, dims}, built.index_data(), built.index_size(), *table);
      for (const size_t threads : {1, 2, 3}) {
        for (const size_t part : {query_count, size_t{33}, size_t{1}}) {
          if (part == 1 && threads > 1) continue;
          std::vector<float> distances(query_count * k);
          std::vector<uint32_t> ids(query_count * k);
          for (size_t first = 0; first < query_count; first += part) {
            const size_t count = std::min(part, query_count - first);
            viewed.search({queries.data() + first * dims, count, dims}, k, distances.data() + first * k,
                          ids.data() + first * k, threads, stats);
          }
          CHECK(std::memcmp(distances.data(), expected.data(), expected.size() * sizeof(float)) == 0);
          CHECK(ids == expected_ids);
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool emulated = std::getenv("ONCEOVER_QEMU") != nullptr;
#if defined(__SANITIZE_ADDRESS__)
  emulated = true;  // as slow
#endif
  const size_t results = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : emulated ? 1000 : 20000;
  test_the_count_itself_notices_a_wrong_row_and_a_wrong_distance();
  test_every_table_and_split_returns_the_same_bits();
  test_results_are_those_of_float64(results, argc > 2 ? argv[2] : nullptr, emulated);
  return check::summary("memory_bank");
}
