// onceover_memory_bank.hpp beside a plain scan in float64, over both libraries, as test_cpp_api.cpp.
#include "onceover_memory_bank.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <type_traits>

#include "check.h"
#include "cpp_api_check.h"

using namespace onceover;

namespace {

static_assert(std::is_nothrow_move_constructible_v<NeighborBank> && !std::is_copy_constructible_v<NeighborBank>);

constexpr size_t kRows = 700, kDims = 33, kQueries = 20;

std::vector<float> values(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> made(count);
  for (float& value : made) value = static_cast<float>(random() % 4096) / 1024 - 2;
  return made;
}

// The lowest of the nearest rows, without those `removed` says.
uint32_t nearest(const std::vector<float>& rows, const float* query, const std::vector<uint32_t>& removed = {}) {
  double best = INFINITY;
  uint32_t found = ONCEOVER_NO_ROW;
  for (uint32_t row = 0; row < rows.size() / kDims; ++row) {
    bool there = true;
    for (const uint32_t gone : removed) there = there && gone != row;
    double sum = 0;
    for (size_t d = 0; d < kDims; ++d) {
      const double difference = double{rows[row * kDims + d]} - double{query[d]};
      sum += difference * difference;
    }
    if (there && sum < best) {
      best = sum;
      found = row;
    }
  }
  return found;
}

void test_searches_find_what_a_scan_finds_also_in_threads_and_apart() {
  const std::vector<float> rows = values(kRows * kDims, 1), queries = values(kQueries * kDims, 2);
  const NeighborBank bank(rows.data(), kRows, kDims);
  const FoundNeighbors found = bank.search(queries.data(), kQueries, 3);
  CHECK(found.rows.size() == kQueries * 3 && found.distances.size() == kQueries * 3);
  for (size_t i = 0; i < kQueries; ++i) {
    CHECK(found.rows[3 * i] == nearest(rows, &queries[i * kDims]));
    CHECK(found.distances[3 * i] <= found.distances[3 * i + 1] && found.distances[3 * i] > 0);
  }
  std::vector<float> apart(kQueries * (kDims + 2)), distances(kQueries * 3);
  std::vector<uint32_t> numbers(kQueries * 3);
  for (size_t i = 0; i < kQueries; ++i) std::copy_n(&queries[i * kDims], kDims, &apart[i * (kDims + 2)]);
  NeighborBank::Scratch scratch;
  const onceover_memory_bank_stats stats =
      bank.search(apart.data(), kQueries, kDims + 2, 3, distances.data(), numbers.data(), scratch);
  CHECK(stats.queries == kQueries && numbers == found.rows && distances == found.distances);
  const void* memory = scratch.data();
  bank.search(apart.data(), kQueries, kDims + 2, 3, distances.data(), numbers.data(), scratch);
  CHECK(scratch.data() == memory);  // nothing was allocated
  std::vector<FoundNeighbors> others(3);
  std::vector<std::thread> threads;
  for (FoundNeighbors& other : others) threads.emplace_back([&] { other = bank.search(queries.data(), kQueries, 3); });
  for (std::thread& thread : threads) thread.join();
  for (const FoundNeighbors& other : others) CHECK(other.rows == found.rows && other.distances == found.distances);
}

void test_banks_change_and_are_stored() {
  std::vector<float> rows = values(kRows * kDims, 3);
  const std::vector<float> added = values(5 * kDims, 4);
  onceover_memory_bank_options options = sized<onceover_memory_bank_options>();
  options.seed = 7;
  options.isa = "scalar";
  NeighborBank bank(rows.data(), kRows, kDims, options);
  CHECK(std::string(bank.info().isa) == "scalar" && bank.info().rows == kRows && bank.info().dims == kDims);
  const std::pair<const void*, size_t> index = bank.index();
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  std::vector<Line> stored((index.second + 63) / 64);
  std::memcpy(stored.data(), index.first, index.second);
  const NeighborBank viewed = NeighborBank::view(rows.data(), kRows, kDims, stored.data(), index.second);
  CHECK(viewed.search(added.data(), 5).rows == bank.search(added.data(), 5).rows);

  CHECK(bank.add(added.data(), 5) == kRows);
  CHECK(bank.search(&added[2 * kDims], 1).rows[0] == kRows + 2 && bank.search(&added[2 * kDims], 1).distances[0] == 0);
  bank.remove({kRows + 2, 0});
  rows.insert(rows.end(), added.begin(), added.end());
  CHECK(bank.search(&added[2 * kDims], 1).rows[0] == nearest(rows, &added[2 * kDims], {kRows + 2, 0}));
  CHECK(bank.info().rows == kRows + 3);
  const NeighborBank moved = std::move(bank);
  CHECK(moved.info().rows == kRows + 3);
}

void test_failures_are_thrown() {
  const std::vector<float> rows = values(4 * kDims, 5);
  NeighborBank bank(rows.data(), 4, kDims);
  CHECK(throws([&] { bank.search(rows.data(), 1, 33); }, ONCEOVER_USAGE, "33"));
  CHECK(throws([&] { bank.remove({9}); }, ONCEOVER_USAGE, "row 9"));
  const std::vector<float> wrong(kDims, NAN);
  CHECK(throws([&] { bank.add(wrong.data(), 1); }, ONCEOVER_INPUT, "NaN"));
  CHECK(throws([&] { NeighborBank refused(rows.data(), 4, 0); }, ONCEOVER_INPUT, "4 x 0"));
  alignas(64) const unsigned char text[72] = "no index";
  CHECK(throws([&] { NeighborBank::view(rows.data(), 4, kDims, text + 1, 64); }, ONCEOVER_USAGE, "multiple of 64"));
  CHECK(throws([&] { NeighborBank::view(rows.data(), 4, kDims, text, 64); }, ONCEOVER_INPUT, ""));
  CHECK(bank.search(wrong.data(), 1).rows[0] == ONCEOVER_NO_ROW);
  CHECK(bank.search(rows.data(), 4, 2).rows[2 * 3] == 3);
}

}  // namespace

int main() {
  test_searches_find_what_a_scan_finds_also_in_threads_and_apart();
  test_banks_change_and_are_stored();
  test_failures_are_thrown();
  return check::summary("cpp_api_memory_bank");
}
