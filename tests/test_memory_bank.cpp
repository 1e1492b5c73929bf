// Exactness of the search, counted: every table, representation and kind of data against a float64 brute force.
//
//     test_memory_bank [results per table [table]]     default 15,000, at least one of each kind; under emulation of
//                                                      another CPU 20,000 of all tables
//
// A result is wrong when its row is farther, in float64 by another order of sums than the kernels', than the nearest by
// more than that rounding can explain, or when an equal row of a lower number exists, or when its distance is not the
// float32 next to that row's. Python's test_memory_bank.py covers the rest: adversarial data, changes, files.
#include "scoring/memory_bank.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>

#include "base/random.h"
#include "check.h"
#include "drawn_rows.h"
#include "kernel_tables.h"
#include "scoring/layout_cost.h"

using namespace onceover;

namespace {

double distance_squared(const float* a, const float* b, size_t dims) {
  double sum = 0;
  for (size_t k = 0; k < dims; ++k) sum += (double{a[k]} - double{b[k]}) * (double{a[k]} - double{b[k]});
  return sum;
}

// (queries, rows) squared distances.
std::vector<double> all_squared(const Rows& bank, const Rows& queries, size_t dims) {
  std::vector<double> squared;
  for (size_t q = 0; q < queries.size(); q += dims) {
    for (size_t i = 0; i < bank.size(); i += dims) {
      squared.push_back(distance_squared(queries.data() + q, bank.data() + i, dims));
    }
  }
  return squared;
}

// How many of the k neighbors of each query are wrong.
size_t count_wrong(const Rows& bank, size_t dims, const std::vector<double>& squared, size_t k,
                   const std::vector<float>& distances, const std::vector<uint32_t>& ids, bool tell = true) {
  const size_t rows = bank.size() / dims;
  size_t wrong = 0;
  std::vector<std::pair<double, uint32_t>> all(rows);
  for (size_t q = 0; q < squared.size() / rows; ++q) {
    const double* by_row = squared.data() + q * rows;
    for (size_t i = 0; i < rows; ++i) all[i] = {by_row[i], static_cast<uint32_t>(i)};
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(k, rows)), all.end());
    for (size_t i = 0; i < k; ++i) {
      const uint32_t id = ids[q * k + i];
      const float distance = distances[q * k + i];
      if (i >= rows) {
        wrong += id != kNoRow || !std::isinf(distance);
        continue;
      }
      const bool known = id < rows;
      const double found = known ? by_row[id] : 0;
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

#if defined(__SANITIZE_ADDRESS__)
const bool kEmulated = true;  // as slow
#else
const bool kEmulated = std::getenv("ONCEOVER_QEMU") != nullptr;
#endif

struct Layout {
  const char* name;
  size_t dims;  // of the rows; rank2 − 1 directions must exist
  Representation representation;
  size_t rank1, rank2, screened;
};
const Layout kLayouts[] = {
    {"chosen", 96, Representation::kScan, 0, 0, 0},
    {"rank 32/64+64", 160, Representation::kRank, 64, 128, 32},
    {"rank 64+64", 200, Representation::kRank, 64, 128, 64},
    {"rank 16/64", 65, Representation::kRank, 64, 64, 16},
    {"rank 64/128 and more", kEmulated ? 160u : 260u, Representation::kRank, 128, kEmulated ? 144u : 256u, 64},
    {"rank 32/192", kEmulated ? 200u : 290u, Representation::kRank, 192, kEmulated ? 192u : 256u, 32},
    {"full", 128, Representation::kFull, 0, 0, 0},
    {"scan", 128, Representation::kScan, 0, 0, 0}};

BuildOptions forced(const Layout& layout) {
  BuildOptions options;
  options.forced = std::strcmp(layout.name, "chosen") != 0;
  options.representation = layout.representation;
  options.rank1 = layout.rank1;
  options.rank2 = layout.rank2;
  options.screened = layout.screened;
  return options;
}

// Rows like features and their index, once for all tests: finding directions takes an emulator seconds.
struct SharedBank {
  size_t rows;
  Rows bank;
  MemoryBank built;
  SharedBank(const Layout& layout, size_t rows_, Random random)
      : rows(rows_),
        bank(feature_like(rows, layout.dims, random, 1)),
        built({bank.data(), rows, layout.dims}, forced(layout), kernels_named("scalar")) {}
};
const SharedBank& shared_bank(const Layout& layout, bool emulated) {
  static std::unique_ptr<SharedBank> banks[std::size(kLayouts)];
  const auto which = static_cast<size_t>(&layout - kLayouts);
  const size_t rows = emulated ? 150 + 20 * which : 400;
  if (banks[which] == nullptr) banks[which] = std::make_unique<SharedBank>(layout, rows, Random(layout.dims));
  return *banks[which];
}

struct Count {
  size_t results = 0, queries = 0, screened = 0, wrong = 0;
};

struct Asked {
  const Layout& layout;
  const Rows &bank, &queries;
  const MemoryBank& built;
  size_t threads;
  bool must_screen;  // else the screen is idle
};

// One bank and its queries, searched by every table for each number of neighbors.
void search_and_count(const std::vector<const KernelTable*>& tables, const Asked& asked, const std::vector<size_t>& ks,
                      std::vector<Count>& counts) {
  const size_t dims = asked.layout.dims, rows = asked.bank.size() / dims, query_count = asked.queries.size() / dims;
  const std::vector<double> squared = all_squared(asked.bank, asked.queries, dims);
  for (size_t t = 0; t < tables.size(); ++t) {
    const MemoryBank memory_bank({asked.bank.data(), rows, dims}, asked.built.index_data(), asked.built.index_size(),
                                 *tables[t]);
    for (const size_t k : ks) {
      std::vector<float> distances(query_count * k);
      std::vector<uint32_t> ids(query_count * k);
      SearchStats stats;
      memory_bank.search({asked.queries.data(), query_count, dims}, k, distances.data(), ids.data(), asked.threads,
                         stats);
      counts[t].wrong += count_wrong(asked.bank, dims, squared, k, distances, ids);
      counts[t].results += query_count * k;
      counts[t].queries += query_count;
      const size_t screened = query_count - stats.scanned_queries - stats.float64_queries;
      counts[t].screened += screened;
      if (asked.must_screen && k <= 2) CHECK(8 * screened > query_count);
    }
  }
}

// `round` draws them.
void search_drawn(const std::vector<const KernelTable*>& tables, const Layout& layout, const std::vector<size_t>& ks,
                  Kind kind, size_t round, std::vector<Count>& counts) {
  Random random(round + 1);
  const size_t dims = layout.dims, rows = 700 + round % 4 * 301;
  const Rows bank = drawn(kind, rows, dims, random, round);
  const Rows queries = drawn_queries(kind, 96, bank, dims, random, round);
  const MemoryBank built({bank.data(), rows, dims}, forced(layout), *tables.front());
  const size_t threads = 1 + round % 2;  // a part of the coordinates takes 32 queries of each thread
  const bool must_screen = layout.rank1 > 0 && kind == Kind::kFeatures;
  search_and_count(tables, {layout, bank, queries, built, threads, must_screen}, ks, counts);
}

void test_results_are_those_of_float64(size_t results_per_table, const std::vector<const KernelTable*>& tables,
                                       bool emulated) {
  const std::vector<size_t> ks = {1, 2, 9};
  const size_t results_per_query = 1 + 2 + 9;
  std::vector<Count> counts(tables.size());
  for (size_t round = 0; counts[0].results < results_per_table;) {
    for (const Layout& layout : kLayouts) {
      if (emulated) {  // few rows, of which many queries are scanned, of some banks all
        const SharedBank& shared = shared_bank(layout, emulated);
        Random random(round + 1);
        const size_t count = results_per_table / (results_per_query * std::size(kLayouts)) + 1;
        const Rows queries = drawn_queries(Kind::kFeatures, count, shared.bank, layout.dims, random, 1);
        search_and_count(tables, {layout, shared.bank, queries, shared.built, 1, false}, ks, counts);
      } else {
        search_drawn(tables, layout, ks, Kind::kFeatures, round, counts);
        search_drawn(tables, layout, ks, round % 2 == 0 ? Kind::kGaussian : Kind::kClustered, round, counts);
      }
      ++round;
    }
  }
  for (size_t t = 0; t < tables.size(); ++t) {
    const Count& count = counts[t];
    std::printf("%s: %zu results of %zu queries, %zu of them screened to the end, %zu wrong\n", tables[t]->name,
                count.results, count.queries, count.screened, count.wrong);
    CHECK(count.wrong == 0 && count.screened > 0);
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
  const std::vector<double> squared = all_squared(bank, queries, dims);
  CHECK(count_wrong(bank, dims, squared, 1, distances, ids) == 0);
  std::vector<float> off = distances;
  off[4] = std::nextafter(std::nextafter(off[4], 0.0f), 0.0f);
  CHECK(count_wrong(bank, dims, squared, 1, off, ids, false) == 1);
  ids[7] = (ids[7] + 1) % 50;
  CHECK(count_wrong(bank, dims, squared, 1, distances, ids, false) == 1);
}

// One index, searched by every table and split: the same bits.
void test_every_table_and_split_returns_the_same_bits(bool emulated) {
  Random random(6);
  const size_t query_count = emulated ? 40 : 70;
  for (const Layout& layout : kLayouts) {
    const auto& [rows, bank, built] = shared_bank(layout, emulated);
    const size_t dims = layout.dims;
    Rows queries = feature_like(query_count, dims, random, 1);
    queries[3 * dims] = std::nanf("");
    queries[4 * dims + 1] = 1e30f;
    for (const size_t k : {2, 5}) {  // two of a part of the coordinates, five of all
      std::vector<float> expected(query_count * k);
      std::vector<uint32_t> expected_ids(query_count * k);
      SearchStats stats;
      built.search({queries.data(), query_count, dims}, k, expected.data(), expected_ids.data(), 1, stats);
      CHECK(std::isinf(expected[3 * k]) && expected_ids[3 * k] == kNoRow);
      CHECK(std::isfinite(expected[4 * k]) && expected_ids[4 * k] < rows);
      for (const KernelTable* table : tables_under_test()) {
        const MemoryBank viewed({bank.data(), rows, dims}, built.index_data(), built.index_size(), *table);
        for (const size_t threads : emulated ? std::vector<size_t>{1, 2} : std::vector<size_t>{1, 2, 3}) {
          for (const size_t part : {query_count, size_t{33}, size_t{1}}) {
            if (part != query_count && (emulated || threads > 1)) continue;
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
}

// Where two layouts cost nearly the same, counts by tables that do not screen alike would choose different ones: avx2
// at 700 rows, amx at 500.
void test_every_table_builds_the_same_bytes(bool emulated) {
  using Shapes = std::vector<std::pair<size_t, size_t>>;
  for (const auto& [rows, dims] : emulated ? Shapes{{600, 80}} : Shapes{{700, 128}, {700, 192}, {500, 192}}) {
    Random random(rows);
    const Rows bank = feature_like(rows, dims, random, 1);
    const MemoryBank expected({bank.data(), rows, dims}, {}, kernels_named("scalar"));
    CHECK(expected.index().representation == Representation::kRank);
    for (const KernelTable* table : tables_under_test()) {
      const MemoryBank built({bank.data(), rows, dims}, {}, *table);
      CHECK(built.index_size() == expected.index_size() &&
            std::memcmp(built.index_data(), expected.index_data(), built.index_size()) == 0);
    }
  }
}

bool same(const SearchStats& a, const SearchStats& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// What a layout is chosen by, of queries some of which are scanned.
void test_every_table_counts_the_same(bool emulated) {
  Random random(7);
  const size_t query_count = emulated ? 32 : 64;  // fewer screen all coordinates
  uint64_t refined = 0, scanned = 0;
  for (const Layout& layout : kLayouts) {
    const MemoryBank& built = shared_bank(layout, emulated).built;
    const size_t dims = layout.dims;
    Rows queries = feature_like(query_count, dims, random, 1);
    const Rows far_out = gaussian(query_count / 4, dims, random);
    std::copy(far_out.begin(), far_out.end(), queries.begin());
    const MatrixView<const float> asked{queries.data(), query_count, dims};
    for (const size_t k : {1, 2}) {
      SearchStats expected, all, none;
      Memory memory;
      Buffer<uint8_t> scratch(memory, search_scratch_bytes(built.index(), k), "search scratch");
      std::vector<float> distances(query_count * k);
      std::vector<uint32_t> ids(query_count * k);
      const KernelTable scalar = counting_kernels(kernels_named("scalar"));
      search(built.index(), asked, k, distances.data(), ids.data(), scalar, scratch.data(), expected);
      refined += expected.refined_rows;
      scanned += expected.scanned_queries;
      for (const KernelTable* table : tables_under_test()) {
        const KernelTable counting = counting_kernels(*table);
        SearchStats counted;
        count_search(built.index(), asked, k, counting, [](const SearchStats&) { return false; }, memory, counted);
        CHECK(same(counted, expected));
      }
      SearchStats known;
      const auto needless = [&](const SearchStats& so_far) {
        known = so_far;
        return true;
      };
      count_search(built.index(), asked, k, scalar, needless, memory, none);
      CHECK(none.measured_rows <= expected.measured_rows && none.exact_rows <= expected.exact_rows);
      CHECK((expected.scanned_queries == 0) == same(none, expected));
      CHECK(expected.scanned_queries == 0 || same(known, none));
      all = none;  // but for what only a scan does
      all.measured_rows = expected.measured_rows;
      all.exact_rows = expected.exact_rows;
      CHECK(same(all, expected));
    }
  }
  CHECK(refined > 0 && scanned > 0);
}

}  // namespace

int main(int argc, char** argv) {
  const bool emulated = kEmulated;
  const char* only = argc > 2 ? argv[2] : nullptr;
  std::vector<const KernelTable*> tables = tables_under_test();
  const auto unasked = [&](const KernelTable* table) { return only != nullptr && std::string(table->name) != only; };
  tables.erase(std::remove_if(tables.begin(), tables.end(), unasked), tables.end());
  const size_t usual = emulated ? 20000 / std::max<size_t>(1, tables.size()) : 15000;
  test_the_count_itself_notices_a_wrong_row_and_a_wrong_distance();
  test_every_table_and_split_returns_the_same_bits(emulated);
  test_every_table_builds_the_same_bytes(emulated);
  test_every_table_counts_the_same(emulated);
  if (!tables.empty()) {
    test_results_are_those_of_float64(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : usual, tables, emulated);
  }
  return check::summary("memory_bank");
}
