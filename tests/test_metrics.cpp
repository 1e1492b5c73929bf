// The metrics room: labelling against a flood fill, the key counter against a plain map, metrics against their
// definitions (every distinct score a threshold, float64), the same bits for every instruction set and order.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "check.h"
#include "kernel_tables.h"
#include "metrics/compute.h"
#include "metrics/score_key.h"
#include "metrics/state_file.h"

using namespace onceover;

namespace {

using Random32 = std::mt19937;

// Emulated CPUs are some 20 times slower.
const bool kEmulated = std::getenv("ONCEOVER_QEMU") != nullptr;

// --- labelling ---

std::vector<uint8_t> random_mask(size_t height, size_t width, uint32_t percent, Random32& bits) {
  std::vector<uint8_t> mask(height * width);
  for (uint8_t& value : mask) value = bits() % 100 < percent ? static_cast<uint8_t>(1 + bits() % 255) : uint8_t{0};
  return mask;
}

// Label of each pixel, 0 for none, regions numbered from 1 in the row-major order of their first pixels.
std::vector<uint32_t> flood(const std::vector<uint8_t>& mask, size_t height, size_t width, int connectivity) {
  std::vector<uint32_t> labels(mask.size(), 0);
  uint32_t count = 0;
  std::vector<size_t> stack;
  for (size_t start = 0; start < mask.size(); ++start) {
    if (mask[start] == 0 || labels[start] != 0) continue;
    labels[start] = ++count;
    stack.push_back(start);
    while (!stack.empty()) {
      const size_t pixel = stack.back(), y = pixel / width, x = pixel % width;
      stack.pop_back();
      for (int dy = -1; dy <= 1; ++dy) {
        for (int dx = -1; dx <= 1; ++dx) {
          if (connectivity == 4 && dy != 0 && dx != 0) continue;
          const size_t other_y = y + static_cast<size_t>(dy), other_x = x + static_cast<size_t>(dx);  // −1 wraps
          if (other_y >= height || other_x >= width) continue;
          const size_t other = other_y * width + other_x;
          if (mask[other] == 0 || labels[other] != 0) continue;
          labels[other] = count;
          stack.push_back(other);
        }
      }
    }
  }
  return labels;
}

void test_regions_are_those_of_a_flood_fill() {
  Random32 bits(1);
  for (const KernelTable* table : tables_under_test()) {
    for (const int connectivity : {4, 8}) {
      RegionFinder finder(connectivity, *table);
      for (size_t width = 1; width <= 200; width += width < 70 ? 1 : 13) {
        const size_t height = 1 + bits() % 23;
        const std::vector<uint8_t> mask = random_mask(height, width, 5 + bits() % 90, bits);
        const std::vector<uint32_t> labels = flood(mask, height, width, connectivity);
        finder.find({mask.data(), height, width, static_cast<ptrdiff_t>(width)});
        std::vector<uint32_t> drawn(mask.size(), 0), areas(finder.areas().size(), 0);
        for (const Run& run : finder.runs()) {
          for (size_t x = run.first; x < run.end; ++x) drawn[run.row * width + x] = run.region + 1;
          areas[run.region] += run.end - run.first;
        }
        CHECK(drawn == labels);
        CHECK(areas == finder.areas());
        const std::vector<RegionBox> boxes = finder.boxes();
        std::vector<RegionBox> expected(boxes.size(), {UINT32_MAX, UINT32_MAX, 0, 0});
        for (size_t pixel = 0; pixel < labels.size(); ++pixel) {
          if (labels[pixel] == 0) continue;
          RegionBox& box = expected[labels[pixel] - 1];
          const auto y = static_cast<uint32_t>(pixel / width), x = static_cast<uint32_t>(pixel % width);
          box = {std::min(box.top, y), std::min(box.left, x), std::max(box.bottom, y + 1), std::max(box.right, x + 1)};
        }
        CHECK(boxes.empty() || std::memcmp(expected.data(), boxes.data(), boxes.size() * sizeof boxes[0]) == 0);
      }
    }
  }
  CHECK_THROWS(RegionFinder(6, kernels()), Status::kUsage, "connectivity is 6");
}

void test_a_flipped_mask_is_read_through_its_stride() {
  const std::vector<uint8_t> mask = {1, 0, 0, 1, 1, 0};  // two rows of three
  RegionFinder finder(8, kernels());
  finder.find({mask.data() + 3, 2, 3, -3});
  CHECK(finder.runs().size() == 2 && finder.runs()[0].end == 2 && finder.runs()[1].end == 1);
}

// --- keys and counters ---

const std::vector<float> kScores = {-INFINITY, -3e38f, -1.5f, -1e-45f, -0.0f, 0.0f,
                                    1e-45f,    1e-38f, 0.5f,  1.5f,    3e38f, INFINITY};

void test_keys_keep_the_order_of_scores() {
  for (size_t i = 0; i < kScores.size(); ++i) {
    for (size_t j = 0; j < kScores.size(); ++j) {
      CHECK((kScores[i] < kScores[j]) == (key_of_score(kScores[i]) < key_of_score(kScores[j])));
    }
    CHECK(score_of_key(key_of_score(kScores[i])) == kScores[i]);
  }
  size_t halves = 0;
  for (uint32_t code = 0; code < 65536; ++code) {
    const auto half = static_cast<uint16_t>(code);
    if (is_nan_f16(half)) continue;
    const int exponent = (half >> 10) & 31, fraction = half & 1023;
    double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) value = INFINITY;
    halves += score_of_f16(half) == static_cast<float>((half & 0x8000) != 0 ? -value : value) ? 1 : 0;
  }
  CHECK(halves == 65536 - 2 * 1023);
}

void test_map_kernels_follow_their_contract_on_every_table() {
  Random32 bits(2);
  for (const KernelTable* table : tables_under_test()) {
    for (size_t count = 0; count <= 300; count += count < 70 ? 1 : 23) {
      std::vector<float> scores(count);
      std::vector<uint8_t> bytes(count);
      size_t nans = 0;
      uint64_t sum = 0;
      for (size_t i = 0; i < count; ++i) {
        const uint32_t random = bits();
        std::memcpy(&scores[i], &random, sizeof random);
        if (random % 5 == 0) scores[i] = kScores[random / 5 % kScores.size()];
        if (random % 31 == 0) scores[i] = random % 2 == 0 ? NAN : -NAN;
        nans += std::isnan(scores[i]) ? 1 : 0;
        bytes[i] = random % 3 == 0 ? static_cast<uint8_t>(random >> 8) : uint8_t{0};
        sum += bytes[i];
      }
      CHECK(table->count_nan_f32(scores.data(), count) == nans);
      CHECK(table->sum_bytes(bytes.data(), count) == sum);
      for (const uint32_t shift : {0u, 1u, 9u, 24u}) {
        std::vector<uint32_t> keys(count + 1, 7);
        table->keys_f32(scores.data(), count, shift, keys.data());
        bool right = keys[count] == 7;
        for (size_t i = 0; i < count; ++i) right = right && keys[i] == key_of_score(scores[i]) >> shift;
        CHECK(right);
      }
      std::vector<uint64_t> words((count + 63) / 64 + 1, 7);
      table->nonzero_bits(bytes.data(), count, words.data());
      bool right = words.back() == 7;
      for (size_t i = 0; i < 64 * (words.size() - 1); ++i) {
        right = right && ((words[i / 64] >> i % 64) & 1) == (i < count && bytes[i] != 0 ? 1u : 0u);
      }
      CHECK(right);
      for (const float threshold : {0.0f, -0.0f, 0.25f, -1e30f}) {
        words.back() = 7;
        table->above_bits_f32(scores.data(), count, threshold, words.data());
        right = words.back() == 7;
        for (size_t i = 0; i < 64 * (words.size() - 1); ++i) {
          right = right && ((words[i / 64] >> i % 64) & 1) == (i < count && scores[i] > threshold ? 1u : 0u);
        }
        CHECK(right);
      }
      float largest = -std::numeric_limits<float>::infinity();  // what std::max makes of a NaN: nothing
      for (size_t i = 0; i < count; ++i) largest = std::max(largest, scores[i]);
      CHECK(table->largest_f32(scores.data(), count) == largest);
    }
    const std::vector<uint8_t> full(70000, 255);
    CHECK(table->sum_bytes(full.data(), full.size()) == 255u * 70000u);
  }
}

// What the counter says, key by key, against a map.
bool holds(KeyCounter& counter, const std::map<uint32_t, uint64_t>& expected) {
  counter.settle();
  std::vector<uint8_t> scratch;
  PageCounts counts;
  std::map<uint32_t, uint64_t> found;
  for (size_t page = 0; page < kPages; ++page) {
    if (counter.is_empty(page)) continue;
    counter.read_page(page, scratch, counts);
    uint64_t total = 0;
    for (uint32_t low = 0; low < kPageKeys; ++low) {
      const auto key = static_cast<uint32_t>(page << kLowBits) | low;
      if (counts.counts[low] > 0) found[key] += counts.counts[low];
      total += counts.counts[low];
    }
    for (const PageCounts::Extra& extra : counts.extras) {
      found[static_cast<uint32_t>(page << kLowBits) | extra.low] += extra.count;
      total += extra.count;
    }
    if (total != counter.page_total(page, kernels())) return false;
  }
  return found == expected;
}

// Few pages, pages that fill slowly, and keys that come again and again.
std::vector<uint32_t> random_keys(size_t count, Random32& bits) {
  std::vector<uint32_t> keys(count);
  for (uint32_t& key : keys) {
    const uint32_t random = bits();
    if (random % 4 == 0) key = 0x80000000u + (bits() & 0x1ffff);   // four pages that become dense
    if (random % 4 == 1) key = 0x90000000u + (bits() & 0x7fffff);  // 256 that do not
    if (random % 4 == 2) key = 0xbf800000u + bits() % 7;           // bytes that overflow
    if (random % 4 == 3) key = bits() & 0x80ffffffu;               // both ends, 1024 pages
  }
  return keys;
}

void test_the_counter_is_a_multiset() {
  Random32 bits(3);
  for (const size_t count : {size_t{0}, size_t{1}, size_t{1000}, KeyCounter::kPendingKeys - 1, KeyCounter::kPendingKeys,
                             KeyCounter::kPendingKeys + 90017}) {
    if (kEmulated && count > 1000 && count < KeyCounter::kPendingKeys) continue;
    const std::vector<uint32_t> keys = random_keys(count, bits);
    std::map<uint32_t, uint64_t> expected, halved;
    for (const uint32_t key : keys) ++expected[key], ++halved[key >> 3];
    KeyCounter counter;
    for (size_t i = 0; i < count;) {
      const size_t part = std::min<size_t>(count - i, 1 + bits() % 5000);
      counter.add(keys.data() + i, part);
      i += part;
    }
    CHECK(counter.total() == count);
    CHECK(counter.size_bytes() <= 2 * count + (size_t{6} << 20));
    KeyCounter unsettled, coarser;
    unsettled.absorb(counter, 0);
    coarser.absorb(counter, 3);
    CHECK(holds(counter, expected));
    CHECK(holds(unsettled, expected));
    CHECK(holds(coarser, halved));
    CHECK(coarser.total() == count);
    unsettled.add_times(0x3f800000u, 3);
    unsettled.add_times(0x3f800000u, 70000);
    unsettled.absorb(counter, 0);
    for (auto& each : expected) each.second *= 2;
    expected[0x3f800000u] += 70003;
    CHECK(holds(unsettled, expected));
  }
}

// --- metrics ---

struct Image {
  size_t height, width;
  std::vector<float> scores;
  std::vector<uint8_t> mask;  // empty: good

  ScoreView map() const {
    return {scores.data(), ScoreType::kFloat32, height, width, static_cast<ptrdiff_t>(width * sizeof(float))};
  }
  MaskView truth() const {
    return {mask.empty() ? nullptr : mask.data(), mask.empty() ? 0 : height, width, static_cast<ptrdiff_t>(width)};
  }
};

enum class Scores { kSmooth, kTies, kWide, kSigned };

std::vector<Image> random_images(size_t count, Scores kind, uint32_t seed) {
  Random32 bits(seed);
  std::vector<Image> images(count);
  for (Image& image : images) {
    image.height = 1 + bits() % 40;
    image.width = 1 + bits() % 90;
    image.scores.resize(image.height * image.width);
    if (bits() % 3 != 0) image.mask = random_mask(image.height, image.width, bits() % 30, bits);
    for (size_t i = 0; i < image.scores.size(); ++i) {
      float score = static_cast<float>(bits() >> 8) / 16777216.0f;
      if (!image.mask.empty() && image.mask[i] != 0) score += 0.3f;
      if (kind == Scores::kTies) score = std::floor(score * 8);
      if (kind == Scores::kWide) score = std::exp2(200 * score - 130);
      if (kind == Scores::kSigned) score = bits() % 50 == 0 ? (bits() % 2 == 0 ? INFINITY : -0.0f) : score - 0.5f;
      image.scores[i] = score;
    }
  }
  return images;
}

SegmentationState gather(const std::vector<Image>& images, const KernelTable& table, size_t budget = 0) {
  SegmentationState state(8, budget, table);
  for (const Image& image : images) state.update(image.map(), image.truth(), 0);
  return state;
}

struct Expected {
  double aupro, auroc, precision, f1;
};

// By the definitions, thresholds from the highest score down.
Expected by_definition(const std::vector<Image>& images, double limit) {
  std::map<float, std::pair<double, double>, std::greater<>> at;  // score → normal pixels, anomalous pixels
  std::map<float, double> overlap;
  double normal = 0, anomalous = 0, regions = 0;
  for (const Image& image : images) {
    std::vector<uint32_t> labels(image.scores.size(), 0);
    if (!image.mask.empty()) labels = flood(image.mask, image.height, image.width, 8);
    std::map<uint32_t, double> areas;
    for (const uint32_t label : labels) areas[label] += 1;
    regions += static_cast<double>(areas.size()) - (areas.count(0) > 0 ? 1 : 0);
    for (size_t i = 0; i < labels.size(); ++i) {
      const float score = image.scores[i] + 0.0f;
      (labels[i] == 0 ? at[score].first : at[score].second) += 1;
      (labels[i] == 0 ? normal : anomalous) += 1;
      if (labels[i] != 0) overlap[score] += 1 / areas[labels[i]];
    }
  }
  Expected result{};
  double fpr = 0, pro = 0, found = 0, false_alarms = 0;
  for (const auto& [score, counts] : at) {
    const double next = fpr + counts.first / normal, height = pro + overlap[score] / regions;
    if (fpr < limit) {
      const double end = std::min(next, limit), share = next > fpr ? (end - fpr) / (next - fpr) : 1;
      result.aupro += (end - fpr) * (pro + pro + share * (height - pro)) / 2;
    }
    result.auroc += counts.first / normal * (found + counts.second / 2) / anomalous;
    fpr = next;
    pro = height;
    found += counts.second;
    false_alarms += counts.first;
    if (counts.second > 0) result.precision += counts.second / anomalous * found / (found + false_alarms);
    result.f1 = std::max(result.f1, 2 * found / (found + false_alarms + anomalous));
  }
  result.aupro /= limit;
  return result;
}

void test_metrics_follow_their_definitions() {
  for (const Scores kind : {Scores::kSmooth, Scores::kTies, Scores::kWide, Scores::kSigned}) {
    for (uint32_t seed = 0; seed < (kEmulated ? 4 : 12); ++seed) {
      const std::vector<Image> images = random_images(2 + seed, kind, seed);
      SegmentationState state = gather(images, kernels());
      if (state.anomalous_pixels() == 0 || state.normal_pixels() == 0) continue;
      const std::vector<double> limits = {0.3, 1.0, 0.01};
      const SegmentationMetrics metrics = compute_metrics(state, limits, kAllGroups).value;
      for (size_t i = 0; i < limits.size(); ++i) {
        CHECK(std::fabs(metrics.aupro[i] - by_definition(images, limits[i]).aupro) < 1e-12);
      }
      const Expected expected = by_definition(images, 1);
      CHECK(std::fabs(metrics.pixel_auroc - expected.auroc) < 1e-12);
      CHECK(std::fabs(metrics.average_precision - expected.precision) < 1e-12);
      CHECK(std::fabs(metrics.f1_max - expected.f1) < 1e-12);
    }
  }
}

void test_of_equal_f1_the_lowest_threshold_is_told() {
  // At 3: found 1 of 2, no false alarm: 2/3. At 1: found both, two false alarms: 4/6.
  const std::vector<float> scores = {3, 2, 2, 1, 0};
  const std::vector<uint8_t> mask = {1, 0, 0, 1, 0};
  SegmentationState state(8, 0, kernels());
  state.update({scores.data(), ScoreType::kFloat32, 1, 5, 20}, {mask.data(), 1, 5, 5}, 0);
  const SegmentationMetrics metrics = compute_metrics(state, {}, kAllGroups).value;
  CHECK(metrics.f1_max == 2.0 / 3 && metrics.f1_max_threshold == 1);
}

void test_the_same_bytes_from_every_table_order_and_merge() {
  for (const Scores kind : {Scores::kSmooth, Scores::kTies, Scores::kWide}) {
    std::vector<Image> images = random_images(30, kind, 77);
    SegmentationState first = gather(images, kernels_named("scalar"));
    const std::vector<uint8_t> bytes = write_state(first);
    const SegmentationMetrics metrics = compute_metrics(first, {0.3}, kAllGroups).value;
    for (const KernelTable* table : tables_under_test()) {
      SegmentationState again = gather(images, *table);
      CHECK(write_state(again) == bytes);
      CHECK(compute_metrics(again, {0.3}, kAllGroups).value.aupro == metrics.aupro);
    }
    std::reverse(images.begin(), images.end());
    SegmentationState left = gather({images.begin(), images.begin() + 11}, kernels());
    const SegmentationState right = gather({images.begin() + 11, images.end()}, kernels());
    left.merge(right);
    CHECK(write_state(left) == bytes);
    SegmentationState loaded = read_state(bytes.data(), bytes.size(), kernels());
    CHECK(write_state(loaded) == bytes);
    CHECK(compute_metrics(loaded, {0.3}, kAllGroups).value.average_precision == metrics.average_precision);
    left.merge(left);
    CHECK(left.images() == 60 && left.normal_pixels() == 2 * loaded.normal_pixels());
    CHECK(std::fabs(compute_metrics(left, {0.3}, kAllGroups).value.aupro[0] - metrics.aupro[0]) < 1e-12);
  }
}

void test_bounds_hold_what_a_budget_coarsened() {
  Random32 bits(5);
  Image image{1500, 2000, std::vector<float>(3000000), {}};
  for (float& score : image.scores) score = std::exp2(static_cast<float>(bits() >> 8) / 16777216.0f * 30);
  image.mask = random_mask(image.height, image.width, 2, bits);
  SegmentationState exact = gather({image}, kernels());
  SegmentationState coarse = gather({image}, kernels(), SegmentationState::kMinBudgetBytes);
  CHECK(exact.dropped_bits() == 0 && coarse.dropped_bits() > 0);
  const SegmentationMetrics value = compute_metrics(exact, {0.3, 0.05}, kAllGroups).value;
  const SegmentationResult result = compute_metrics(coarse, {0.3, 0.05}, kAllGroups);
  CHECK(result.certified);
  const auto between = [](double low, double middle, double high) { return low <= middle && middle <= high; };
  for (size_t i = 0; i < 2; ++i) CHECK(between(result.lower.aupro[i], value.aupro[i], result.upper.aupro[i]));
  CHECK(between(result.lower.pixel_auroc, value.pixel_auroc, result.upper.pixel_auroc));
  CHECK(between(result.lower.average_precision, value.average_precision, result.upper.average_precision));
  CHECK(between(result.lower.f1_max, value.f1_max, result.upper.f1_max));
  CHECK(result.lower.pixel_auroc < result.upper.pixel_auroc);
  CHECK(std::fabs(result.value.pixel_auroc - value.pixel_auroc) < 0.01);
  exact.merge(coarse);
  CHECK(exact.dropped_bits() == coarse.dropped_bits() && exact.normal_pixels() == 2 * coarse.normal_pixels());
}

void test_bad_input_changes_nothing() {
  SegmentationState state(8, 0, kernels());
  std::vector<Image> images = random_images(3, Scores::kSmooth, 9);
  state.update(images[0].map(), images[0].truth(), 0);
  const std::vector<uint8_t> before = write_state(state);
  images[1].scores[0] = NAN;
  CHECK_THROWS(state.update(images[1].map(), images[1].truth(), 0), Status::kInput, "image 1: 1 of");
  CHECK_THROWS(state.update({images[2].scores.data(), ScoreType::kFloat32, 0, 5, 0}, {}, 0), Status::kInput,
               "no pixels");
  CHECK_THROWS(state.update(images[2].map(), {}, SegmentationState::kMaxGroups), Status::kUsage, "group 65536");
  CHECK_THROWS(compute_metrics(state, {0.0}, kAllGroups), Status::kUsage, "must lie in (0, 1]");
  CHECK_THROWS(compute_metrics(state, {0.3}, 4), Status::kUsage, "group 4 of 1");
  CHECK_THROWS(SegmentationState(8, 5, kernels()), Status::kUsage, "4 MiB");
  SegmentationState four(4, 0, kernels());
  CHECK_THROWS(state.merge(four), Status::kUsage, "8-connected");
  CHECK(write_state(state) == before);
}

void test_damaged_bytes_are_refused() {
  SegmentationState state = gather(random_images(4, Scores::kSmooth, 21), kernels());
  const std::vector<uint8_t> bytes = write_state(state);
  Random32 bits(6);
  size_t refused = 0, tried = 0;
  const auto try_bytes = [&](const std::vector<uint8_t>& damaged) {
    ++tried;
    try {
      read_state(damaged.data(), damaged.size(), kernels());
    } catch (const Error& error) {
      refused += error.status() == Status::kInput || error.status() == Status::kUnsupported ? 1 : 0;
    }
  };
  for (size_t size = 0; size < bytes.size(); size += 1 + size / 40)
    try_bytes({bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)});
  for (size_t i = 0; i < (kEmulated ? 50 : 500); ++i) {
    std::vector<uint8_t> damaged = bytes;
    damaged[i < 100 ? i : bits() % bytes.size()] ^= static_cast<uint8_t>(1u << bits() % 8);
    try_bytes(damaged);
  }
  CHECK(refused == tried);
  // Past the checksum: any change of a byte may be refused or read, but nothing is read or written out of bounds.
  for (size_t i = 0; i < (kEmulated ? 100 : 2000); ++i) {
    std::vector<uint8_t> damaged = bytes;
    const size_t body = bytes.size() - sizeof(Digest);
    damaged[i < 400 ? i % body : bits() % body] = static_cast<uint8_t>(bits());
    const Digest digest = sha256(damaged.data(), body);
    std::memcpy(damaged.data() + body, digest.data(), digest.size());
    try {
      SegmentationState read = read_state(damaged.data(), damaged.size(), kernels());
      compute_metrics(read, {0.3}, kAllGroups);
      CHECK(write_state(read) == damaged);
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > tried);
}

}  // namespace

int main() {
  test_regions_are_those_of_a_flood_fill();
  test_a_flipped_mask_is_read_through_its_stride();
  test_keys_keep_the_order_of_scores();
  test_map_kernels_follow_their_contract_on_every_table();
  test_the_counter_is_a_multiset();
  test_metrics_follow_their_definitions();
  test_of_equal_f1_the_lowest_threshold_is_told();
  test_the_same_bytes_from_every_table_order_and_merge();
  test_bounds_hold_what_a_budget_coarsened();
  test_bad_input_changes_nothing();
  test_damaged_bytes_are_refused();
  return check::summary("metrics");
}
