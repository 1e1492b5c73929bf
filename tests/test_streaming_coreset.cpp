// StreamingCoreset covers every row that passed within the radius it tells, on data made to upset its ladder; it
// selects the same rows on every instruction set and however the stream is cut; the plain greedy selection is hardly
// tighter.
#include "scoring/streaming_coreset.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"
#include "scoring/coreset.h"

using namespace onceover;

namespace {

constexpr size_t kRows = 6000, kDims = 6, kSample = 700, kCount = 300;

struct Data {
  const char* name;
  std::function<float(std::mt19937& bits, size_t row, size_t column)> value;
};

float uniform(std::mt19937& bits) { return static_cast<float>(bits() >> 8) / 8388608.0f - 1.0f; }  // [−1, 1)

// A value that depends on (seed, column) only: what rows of one cluster share.
float shared_value(size_t seed, size_t column) {
  const uint32_t bits = (static_cast<uint32_t>(seed) * 10007 + static_cast<uint32_t>(column) + 1) * 2654435761u;
  return static_cast<float>(bits >> 8) / 8388608.0f - 1.0f;
}

const std::vector<Data> kUsual = {
    {"uniform", [](auto& bits, size_t, size_t) { return uniform(bits); }},
    {"clusters",
     [](auto& bits, size_t row, size_t column) { return 10 * shared_value(row % 40, column) + 0.3f * uniform(bits); }},
    {"outliers", [](auto& bits, size_t row, size_t) { return uniform(bits) * (row % 97 == 0 ? 10.0f : 1.0f); }},
};

// The stream is unlike its beginning, which the seeds come from.
const std::vector<Data> kOdd = {
    {"all equal", [](auto&, size_t, size_t) { return 0.3f; }},
    {"one point, then many",
     [](auto& bits, size_t row, size_t) { return row < kSample ? 0.0f : 1000 * uniform(bits); }},
    {"few points", [](auto&, size_t row, size_t column) { return shared_value(row * row % 101, column); }},
    {"it drifts away", [](auto& bits, size_t row, size_t) { return uniform(bits) + 0.01f * static_cast<float>(row); }},
    {"it grows",
     [](auto& bits, size_t row, size_t) { return uniform(bits) * std::exp2(static_cast<float>(row) / 99); }},
    {"it shrinks", [](auto& bits, size_t row, size_t) { return uniform(bits) / (1 + static_cast<float>(row)); }},
    {"ties", [](auto& bits, size_t, size_t) { return static_cast<float>(bits() % 3); }},
    {"denormal", [](auto& bits, size_t, size_t) { return 1e-40f * uniform(bits); }},
    {"squares overflow", [](auto& bits, size_t, size_t) { return 3e19f * uniform(bits); }},
    {"differences overflow", [](auto& bits, size_t, size_t) { return 3.4e38f * uniform(bits); }},
};

const bool kEmulated = std::getenv("ONCEOVER_QEMU") != nullptr;  // which takes fifty times as long

// Under an emulator, a third of them.
std::vector<const Data*> all_data() {
  std::vector<const Data*> all;
  for (const auto* set : {&kUsual, &kOdd}) {
    for (const Data& data : *set) all.push_back(&data);
  }
  if (!kEmulated) return all;
  std::vector<const Data*> some;
  for (size_t i = 1; i < all.size(); i += 3) some.push_back(all[i]);
  return some;
}

std::vector<float> make(const Data& data) {
  std::mt19937 bits(7);
  std::vector<float> rows;
  for (size_t i = 0; i < kRows; ++i) {
    for (size_t k = 0; k < kDims; ++k) rows.push_back(data.value(bits, i, k));
  }
  return rows;
}

struct Selection {
  std::vector<uint64_t> ids, held;
  float radius;
  size_t taken;
  bool operator==(const Selection& other) const {
    return ids == other.ids && held == other.held && radius == other.radius && taken == other.taken;
  }
};

// Seeds are the greedy selection of the first kSample rows; ids are row numbers; the stream comes in pieces.
Selection select(const std::vector<float>& rows, size_t count, size_t piece, const KernelTable& table) {
  Memory memory;
  GreedyCoreset greedy({rows.data(), kSample, kDims}, 5, table, memory);
  greedy.select(count);
  std::vector<float> seeds;
  std::vector<uint64_t> ids(greedy.selected().begin(), greedy.selected().end());
  for (const uint64_t id : ids) seeds.insert(seeds.end(), rows.data() + id * kDims, rows.data() + (id + 1) * kDims);
  const float radius = greedy.covering_radius();
  StreamingCoreset coreset({seeds.data(), ids.size(), kDims}, ids.data(), radius, count, table);
  size_t taken = 0;
  for (size_t at = kSample; at < kRows; at += piece) {
    const size_t size = std::min(piece, kRows - at);
    ids.resize(size);
    std::iota(ids.begin(), ids.end(), at);
    taken += coreset.add({rows.data() + at * kDims, size, kDims}, ids.data()).size();
  }
  return {coreset.selected(), coreset.held(), coreset.covering_radius(), taken};
}

// In float64: the distance of the worst row to its nearest selected one.
double farthest(const std::vector<float>& rows, const std::vector<uint64_t>& ids) {
  double most = 0;
  for (size_t i = 0; i < kRows; ++i) {
    double least = std::numeric_limits<double>::infinity();
    for (const uint64_t id : ids) {
      double sum = 0;
      for (size_t k = 0; k < kDims; ++k) {
        const double difference = double{rows[i * kDims + k]} - rows[id * kDims + k];
        sum += difference * difference;
      }
      least = std::min(least, sum);
    }
    most = std::max(most, least);
  }
  return std::sqrt(most);
}

void check_selection(const Data& data, const std::vector<float>& rows, const Selection& selection, size_t count) {
  const std::vector<uint64_t>& ids = selection.ids;
  bool good = CHECK(!ids.empty() && ids.size() <= count);
  good &= CHECK(std::is_sorted(ids.begin(), ids.end()));
  good &= CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
  good &= CHECK(ids.back() < kRows);
  good &= CHECK(std::includes(selection.held.begin(), selection.held.end(), ids.begin(), ids.end()));
  good &= CHECK(farthest(rows, ids) <= double{selection.radius} * (1 + 1e-6) + 1e-30);  // squares of denormals vanish
  if (!good)
    std::fprintf(stderr, "on %s, radius %g, %zu of %zu\n", data.name, double{selection.radius}, ids.size(), count);
}

void test_every_row_is_within_the_radius_of_the_selection() {
  for (const Data* data : all_data()) {
    const std::vector<float> rows = make(*data);
    for (const size_t count : {size_t{1}, size_t{40}, kCount}) {
      if (count == kCount && kEmulated) continue;  // checked below, too
      check_selection(*data, rows, select(rows, count, 512, kernels()), count);
    }
  }
}

void test_instruction_sets_and_pieces_do_not_change_the_selection() {
  for (const Data* data : all_data()) {
    const std::vector<float> rows = make(*data);
    const Selection expected = select(rows, kCount, kRows, kernels());
    check_selection(*data, rows, expected, kCount);
    for (const KernelTable* table : available_kernels()) {
      if (!CHECK(select(rows, kCount, kRows, *table) == expected)) {
        std::fprintf(stderr, "on %s, %s\n", data->name, table->name);
      }
    }
    for (const size_t piece : kEmulated ? std::vector<size_t>{100} : std::vector<size_t>{100, 256, 1000}) {
      Selection cut = select(rows, kCount, piece, kernels());
      cut.taken = expected.taken;  // nets are given up at cuts, and take rows until then
      if (!CHECK(cut == expected)) std::fprintf(stderr, "on %s, in pieces of %zu\n", data->name, piece);
    }
  }
}

// Nets are 5 % apart and about as economical as the greedy selection.
void test_the_greedy_selection_is_hardly_tighter() {
  for (const Data& data : kUsual) {
    const std::vector<float> rows = make(data);
    for (const size_t count : {size_t{100}, kCount, size_t{600}}) {
      if (kEmulated && (count != 100 || &data != &kUsual.front())) continue;  // the same selection on every CPU
      Memory memory;
      GreedyCoreset greedy({rows.data(), kRows, kDims}, 5, kernels(), memory);
      greedy.select(count);
      const Selection selection = select(rows, count, 512, kernels());
      if (!CHECK(selection.radius <= 1.1f * greedy.covering_radius())) {
        std::fprintf(stderr, "on %s, %zu rows: %g, plainly %g\n", data.name, count, double{selection.radius},
                     double{greedy.covering_radius()});
      }
      CHECK(selection.ids.size() == count);
    }
  }
}

// 100,000 rows (emulated, 25,000): nets of 200 rows, the wider the smaller, many of their rows shared.
void test_what_is_held_does_not_grow_with_the_stream() {
  std::mt19937 bits(3);
  std::vector<float> rows(kDims * 500), seeds(kDims * 64);
  for (float& value : seeds) value = uniform(bits);
  std::vector<uint64_t> ids(500);
  std::iota(ids.begin(), ids.end(), 0);
  StreamingCoreset coreset({seeds.data(), 64, kDims}, ids.data(), 0.5f, 200, kernels());
  for (size_t pass = 0; pass < (kEmulated ? 50u : 200u); ++pass) {
    for (float& value : rows) value = uniform(bits);
    std::iota(ids.begin(), ids.end(), 64 + 500 * pass);
    coreset.add({rows.data(), 500, kDims}, ids.data());
  }
  CHECK(coreset.held().size() <= 5 * 200);
  CHECK(coreset.selected().size() == 200);
}

void test_what_cannot_be_is_refused() {
  std::vector<float> rows(12, 1.0f);
  const std::vector<uint64_t> ids = {0, 1, 2};
  const KernelTable& table = kernels();
  const MatrixView<const float> good{rows.data(), 3, 4};
  CHECK_THROWS(StreamingCoreset({rows.data(), 0, 4}, ids.data(), 1, 5, table), Status::kInput, "0 x 4");
  CHECK_THROWS(StreamingCoreset({rows.data(), 2, 4, 6}, ids.data(), 1, 5, table), Status::kInput, "stride 6");
  CHECK_THROWS(StreamingCoreset(good, ids.data(), 1, 0, table), Status::kUsage, "0 rows");
  for (const float radius : {-1.0f, std::nanf("")}) {
    CHECK_THROWS(StreamingCoreset(good, ids.data(), radius, 5, table), Status::kUsage, "covering radius");
  }
  StreamingCoreset coreset(good, ids.data(), 1, 5, table);
  CHECK_THROWS(coreset.add({rows.data(), 4, 3}, ids.data()), Status::kInput, "4 x 3");
  const Selection before{coreset.selected(), coreset.held(), coreset.covering_radius(), 0};
  std::vector<float> bad = rows;
  bad[9] = std::nanf("");
  CHECK_THROWS(coreset.add({bad.data(), 3, 4}, ids.data()), Status::kInput, "row 2 of 3");
  CHECK_THROWS(StreamingCoreset({bad.data(), 3, 4}, ids.data(), 1, 5, table), Status::kInput, "row 2 of 3");
  CHECK((before == Selection{coreset.selected(), coreset.held(), coreset.covering_radius(), 0}));
}

}  // namespace

int main() {
  test_every_row_is_within_the_radius_of_the_selection();
  test_instruction_sets_and_pieces_do_not_change_the_selection();
  test_the_greedy_selection_is_hardly_tighter();
  test_what_is_held_does_not_grow_with_the_stream();
  test_what_cannot_be_is_refused();
  return check::summary("streaming_coreset");
}
