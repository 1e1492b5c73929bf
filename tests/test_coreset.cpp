// GreedyCoreset selects what the plain algorithm selects, bit for bit, on every instruction set: on data that lets it
// pass rows over and on data made of ties, near ties, overflow and underflow. How fast it is: benchmarks/README.md.
#include "scoring/coreset.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"

using namespace onceover;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Data {
  const char* name;
  std::function<float(std::mt19937& bits, size_t row, size_t column)> value;
};

float uniform(std::mt19937& bits) { return static_cast<float>(bits() >> 8) / 8388608.0f - 1.0f; }  // [−1, 1)

// A value that depends on (seed, column) only: what rows of one cluster, or copies of one row, share.
float shared_value(size_t seed, size_t column) {
  const uint32_t bits = (static_cast<uint32_t>(seed) * 10007 + static_cast<uint32_t>(column) + 1) * 2654435761u;
  return static_cast<float>(bits >> 8) / 8388608.0f - 1.0f;
}

const std::vector<Data> kData = {
    {"uniform", [](auto& bits, size_t, size_t) { return uniform(bits); }},
    {"clusters",
     [](auto& bits, size_t row, size_t column) { return 10 * shared_value(row % 20, column) + 0.3f * uniform(bits); }},
    {"far offset", [](auto& bits, size_t, size_t) { return 1000 + uniform(bits); }},
    {"copies", [](auto&, size_t row, size_t column) { return shared_value(row * row % 601, column); }},
    {"all equal", [](auto&, size_t, size_t) { return 0.3f; }},
    {"ties", [](auto& bits, size_t, size_t) { return static_cast<float>(bits() % 3); }},
    {"all distances equal", [](auto&, size_t row, size_t column) { return row == column ? 1.0f : 0.0f; }},
    {"near ties",
     [](auto& bits, size_t row, size_t column) {
       const float value = (row + column) % 2 == 0 ? 1.0f : -1.0f;
       return bits() % 4 == 0 ? std::nextafter(value, 2.0f) : value;
     }},
    {"a line",
     [](auto&, size_t row, size_t column) { return static_cast<float>(column + 1) * static_cast<float>(row); }},
    {"every step halves", [](auto&, size_t row, size_t) { return std::ldexp(1.0f, 60 - static_cast<int>(row % 120)); }},
    {"denormal", [](auto& bits, size_t, size_t) { return 1e-40f * uniform(bits); }},
    {"squares are denormal", [](auto& bits, size_t, size_t) { return 1e-20f * uniform(bits); }},
    {"squares overflow", [](auto& bits, size_t, size_t) { return 3e19f * uniform(bits); }},
    {"differences overflow", [](auto& bits, size_t, size_t) { return 3.4e38f * uniform(bits); }},
    {"huge range", [](auto& bits, size_t, size_t) { return uniform(bits) * std::pow(10.0f, 19.0f * uniform(bits)); }},
    {"outliers",
     [](auto& bits, size_t row, size_t) {
       return uniform(bits) * (row % 97 == 0 ? 100.0f : row % 2 == 0 ? 1.0f : 0.01f);
     }},
};

std::vector<float> make(const Data& data, size_t rows, size_t dims) {
  std::mt19937 bits(static_cast<uint32_t>(rows * 31 + dims));
  std::vector<float> points(rows * dims);
  for (size_t i = 0; i < points.size(); ++i) points[i] = data.value(bits, i / dims, i % dims);
  return points;
}

// The plain algorithm: every row meets every center.
struct Plain {
  std::vector<uint32_t> selected;
  std::vector<float> radius;  // radius[k]: with k rows selected
};

Plain select_plainly(const std::vector<float>& points, size_t rows, size_t dims, size_t first, size_t count) {
  const KernelTable& table = kernels_named("scalar");
  std::vector<float> squared(rows, kInfinity);
  Plain plain{{}, {kInfinity}};
  for (size_t next = first; plain.selected.size() < count && squared[next] > 0;) {
    plain.selected.push_back(static_cast<uint32_t>(next));
    next = table.lower_to_center_f32(points.data(), rows, dims, points.data() + next * dims, squared.data());
    plain.radius.push_back(std::sqrt(squared[next]));
  }
  return plain;
}

// In pieces, so that resuming and the radius are compared all along the way.
bool selects_as(const Plain& plain, const std::vector<float>& points, size_t rows, size_t dims, size_t first,
                size_t count, const KernelTable& table) {
  Memory memory;
  GreedyCoreset coreset({points.data(), rows, dims}, first, table, memory);
  size_t asked = 0;
  for (const size_t piece : {0, 1, 1, 3, 64, 17, 500}) {
    const size_t take = std::min(piece, count - asked);
    coreset.select(take);
    asked += take;
    const size_t done = std::min(asked, plain.selected.size());
    if (coreset.selected().size() != done) return false;
    const float radius = coreset.covering_radius();
    if (std::memcmp(&radius, &plain.radius[done], sizeof radius) != 0) return false;
  }
  coreset.select(count - asked);
  const float radius = coreset.covering_radius();
  return coreset.selected() == plain.selected && std::memcmp(&radius, &plain.radius.back(), sizeof radius) == 0;
}

void compare(size_t rows, size_t dims, size_t count) {
  for (const Data& data : kData) {
    const std::vector<float> points = make(data, rows, dims);
    const Plain plain = select_plainly(points, rows, dims, rows / 3, count);
    for (const KernelTable* table : available_kernels()) {
      if (!CHECK(selects_as(plain, points, rows, dims, rows / 3, count, *table))) {
        std::fprintf(stderr, "on %s, %zu x %zu, %zu selected, %s\n", data.name, rows, dims, count, table->name);
      }
    }
  }
}

void test_few_rows_are_selected_as_plainly(bool emulated) {
  for (const size_t rows : {1, 2, 3, 15, 16, 17, 64, 65}) {
    for (const size_t dims : {1, 3, 16, 17, 40}) {
      if (!emulated || dims == 17) compare(rows, dims, rows + 1);
    }
  }
}

// More rows than contend at once (1024) and more selected than make cells (256); in the second, all of them.
void test_many_rows_are_selected_as_plainly(bool emulated) {
  compare(1100, 5, 270);
  if (emulated) return;
  compare(1300, 5, 1300);
  compare(1200, 64, 400);
  compare(3000, 33, 400);
  compare(5000, 2, 600);
  compare(300, 1031, 100);
}

// The corners of a simplex: all distances are one distance, and more rows are tied than contend at once.
void test_ties_go_to_the_lowest_index(bool emulated) {
  const size_t rows = emulated ? 1050 : 1300, dims = rows;
  std::vector<float> points(rows * dims, 0.0f);
  for (size_t i = 0; i < rows; ++i) points[i * dims + i] = 1;
  std::vector<uint32_t> expected(emulated ? 25 : 40);
  for (uint32_t k = 0; k < expected.size(); ++k) expected[k] = k == 0 ? 20 : k <= 20 ? k - 1 : k;
  for (const KernelTable* table : available_kernels()) {
    Memory memory;
    GreedyCoreset coreset({points.data(), rows, dims}, 20, *table, memory);
    coreset.select(expected.size());
    CHECK(coreset.selected() == expected);
    CHECK(coreset.covering_radius() == std::sqrt(2.0f));
  }
}

void test_memory_is_counted_and_held_to_its_limit() {
  const std::vector<float> points(4000 * 32);
  Memory memory;
  {
    GreedyCoreset coreset({points.data(), 4000, 32}, 0, kernels(), memory);
    const size_t rounded_up = 10 * kAlignment;  // each buffer takes whole cache lines
    CHECK(memory.used_bytes() <= 4000 * 17 + (1024 + 1024) * (32 + 2) * sizeof(float) + rounded_up);
  }
  CHECK(memory.used_bytes() == 0);
  Memory small(heap_allocator(), 100000);
  CHECK_THROWS(GreedyCoreset({points.data(), 4000, 32}, 0, kernels(), small), Status::kMemory, "coreset");
  CHECK(small.used_bytes() == 0);
}

}  // namespace

int main() {
  const bool emulated = std::getenv("ONCEOVER_QEMU") != nullptr;
  test_few_rows_are_selected_as_plainly(emulated);
  test_many_rows_are_selected_as_plainly(emulated);
  test_ties_go_to_the_lowest_index(emulated);
  test_memory_is_counted_and_held_to_its_limit();
  return check::summary("coreset");
}
