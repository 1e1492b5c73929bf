// Kernels and what stands on them: every instruction set returns the bits of scalar, scalar follows kernel_table.h,
// nearest_neighbor and GreedyCoreset keep their contracts. Accuracy against float64 is in test_kernels.py.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"
#include "scoring/coreset.h"
#include "scoring/nearest_neighbor.h"

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

struct Found {
  std::vector<float> distance;
  std::vector<uint32_t> index;
};

Found find(const std::vector<float>& queries, const std::vector<float>& bank, size_t dims, const KernelTable& table) {
  Found found{std::vector<float>(queries.size() / dims), std::vector<uint32_t>(queries.size() / dims)};
  nearest_neighbor({queries.data(), queries.size() / dims, dims}, {bank.data(), bank.size() / dims, dims},
                   found.distance.data(), found.index.data(), table);
  return found;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The contract of kernel_table.h written a second time: zero-padded to 16, partial by partial.
float squared_by_contract(const float* a, const float* b, size_t dims) {
  std::vector<float> partial(16, 0.0f);
  for (size_t j = 0; j < 16; ++j) {
    for (size_t i = j; i < dims; i += 16) {
      const volatile float difference = a[i] - b[i];  // volatile: one rounding per operation, whatever the flags
      const volatile float square = difference * difference;
      partial[j] += square;
    }
  }
  for (size_t half : {8, 4, 2, 1}) {
    for (size_t j = 0; j < half; ++j) partial[j] = partial[j] + partial[j + half];
  }
  return partial[0];
}

void test_every_table_returns_the_bits_of_scalar_on_nearest_rows() {
  for (const Values values :
       {Values::kUnit, Values::kOffset, Values::kDenormal, Values::kHugeRange, Values::kDuplicates}) {
    for (const size_t dims : kDims) {
      for (const size_t rows : {1, 2, 5, 1000}) {
        const std::vector<float> bank = random_rows(rows, dims, values, 1);
        const size_t most = rows == 1000 && dims > 64 ? 5 : 64;  // keeps the whole file under seconds
        for (const size_t count : {1, 3, 4, 5, 64}) {
          if (count > most) continue;
          std::vector<float> queries = random_rows(count, dims, values, 2);
          if (count > 3) queries[dims] = kInfinity, queries[2 * dims] = std::nanf("");
          const Found expected = find(queries, bank, dims, kernels_named("scalar"));
          for (const KernelTable* table : available_kernels()) {
            const Found got = find(queries, bank, dims, *table);
            CHECK(same_bits(got.distance, expected.distance));
            CHECK(got.index == expected.index);
          }
        }
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
        for (const KernelTable* table : available_kernels()) {
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

void test_scalar_follows_the_contract() {
  for (const size_t dims : kDims) {
    const std::vector<float> a = random_rows(1, dims, Values::kOffset, 5), b = random_rows(1, dims, Values::kUnit, 6);
    float squared = kInfinity;
    uint32_t index = 0;
    kernels_named("scalar").nearest_row_f32(a.data(), 1, b.data(), 1, dims, 7, &squared, &index);
    CHECK(squared == squared_by_contract(a.data(), b.data(), dims));
    CHECK(index == 7);
  }
}

void test_ties_go_to_the_lowest_index_also_across_tiles() {
  const size_t dims = 32, rows = 2000;  // 256 KB: many tiles
  const std::vector<float> one = random_rows(1, dims, Values::kUnit, 7);
  for (const KernelTable* table : available_kernels()) {
    std::vector<float> bank = random_rows(rows, dims, Values::kOffset, 8);
    for (const size_t copy : {1999, 700, 301}) std::copy(one.begin(), one.end(), bank.begin() + copy * dims);
    const Found found = find(one, bank, dims, *table);
    CHECK(found.distance[0] == 0);
    CHECK(found.index[0] == 301);
  }
}

void test_a_query_that_cannot_be_compared_is_infinitely_far() {
  const std::vector<float> bank = random_rows(9, 20, Values::kUnit, 9);
  for (const KernelTable* table : available_kernels()) {
    for (const float poison : {kInfinity, -kInfinity, std::nanf(""), 3e38f}) {  // (3e38)² overflows: far, not near
      std::vector<float> queries = random_rows(3, 20, Values::kUnit, 10);
      queries[20 + 19] = poison;
      const Found found = find(queries, bank, 20, *table);
      CHECK(found.distance[1] == kInfinity && found.index[1] == UINT32_MAX);
      CHECK(std::isfinite(found.distance[0]) && found.index[0] < 9);
      CHECK(std::isfinite(found.distance[2]) && found.index[2] < 9);
    }
  }
}

void test_shapes_and_values_are_checked_at_the_door() {
  const std::vector<float> data(64, 1.0f);
  float distance[8];
  uint32_t index[8];
  const KernelTable& table = kernels_named("scalar");
  const MatrixView<const float> queries(data.data(), 2, 4), none(data.data(), 0, 4), wide(data.data(), 2, 5),
      padded(data.data(), 2, 4, 8);
  CHECK_THROWS(nearest_neighbor(queries, none, distance, index, table), Status::kInput, "0 x 4");
  CHECK_THROWS(nearest_neighbor(queries, wide, distance, index, table), Status::kInput, "queries have 4 values");
  CHECK_THROWS(nearest_neighbor(queries, padded, distance, index, table), Status::kInput, "stride 8");
  std::vector<float> bad = data;
  bad[4 * 9 + 2] = std::nanf("");
  CHECK_THROWS(check_finite_rows({bad.data(), 16, 4}, "memory bank"), Status::kInput, "memory bank: row 9 of 16");
  bad[4 * 9 + 2] = -kInfinity;
  CHECK_THROWS(check_finite_rows({bad.data(), 16, 4}, "memory bank"), Status::kInput, "row 9 of 16");
  check_finite_rows({bad.data(), 9, 4}, "the rows before");  // does not throw
  Memory memory;
  CHECK_THROWS(GreedyCoreset({data.data(), 16, 4}, 16, table, memory), Status::kUsage, "16 rows (0 to 15)");
  CHECK_THROWS(GreedyCoreset({data.data(), 0, 4}, 0, table, memory), Status::kInput, "0 x 4");
  CHECK_THROWS(GreedyCoreset({bad.data(), 16, 4}, 0, table, memory), Status::kInput, "row 9 of 16");
}

// By hand: from 0 the farthest is 20; then 10 (distance 10); then 2 (distance 2, before 1 and 11 at 1); then of 1 and
// 11, both at distance 1, the lower index. 11 remains, at distance 1.
void test_coreset_of_a_line_is_the_one_worked_out_by_hand() {
  const std::vector<float> line = {0, 1, 2, 10, 11, 20};
  for (const KernelTable* table : available_kernels()) {
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
  for (const KernelTable* table : available_kernels()) {
    Memory memory;
    GreedyCoreset coreset({points.data(), 50, 6}, 40, *table, memory);
    coreset.select(50);
    CHECK(coreset.selected().size() == 3);
    CHECK(coreset.selected().front() == 40);
  }
}

void test_dispatch_lists_forces_and_refuses() {
  CHECK(available_kernels().size() >= 1);
  CHECK(std::string(available_kernels().back()->name) == "scalar");
  CHECK_THROWS(kernels_named("avx3"), Status::kUnknownName, "'avx3' does not exist; known: avx512, avx2, scalar");
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
}

}  // namespace

int main() {
  test_every_table_returns_the_bits_of_scalar_on_nearest_rows();
  test_every_table_returns_the_bits_of_scalar_on_coreset_steps();
  test_scalar_follows_the_contract();
  test_ties_go_to_the_lowest_index_also_across_tiles();
  test_a_query_that_cannot_be_compared_is_infinitely_far();
  test_shapes_and_values_are_checked_at_the_door();
  test_coreset_of_a_line_is_the_one_worked_out_by_hand();
  test_coreset_stops_when_the_remaining_rows_coincide_with_the_selection();
  test_dispatch_lists_forces_and_refuses();
  return check::summary("kernels");
}
