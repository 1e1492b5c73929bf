#include "session/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/finite.h"
#include "corrections/cover.h"
#include "kernels/dispatch.h"

namespace onceover {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t passed_ns(Clock::time_point from, Clock::time_point to) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

GraphView graph_of(const Package& package) {
  const MemberView& member = package.require("graph.onnx");
  return {member.data, static_cast<size_t>(member.size_bytes)};
}

template <typename T>
size_t first_maximum(const T* values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

// One parity image being replayed: what differs, by how much, and how much may.
struct Replay {
  const Package& package;
  size_t image;     // its number, from 0
  float tolerance;  // relative to `scale`
  float scale;      // the largest expected patch score or score

  float allowed() const { return tolerance * scale; }

  // Returns |expected − got| / scale (0 when both are 0); throws when it is more than allowed, or not a number.
  double compare(const char* quantity, size_t index, float expected, float got) const {
    const double difference = std::fabs(double{expected} - double{got});
    if (!(difference <= allowed())) {
      fail(
          Status::kVerification,
          "%s: parity image %zu, %s %zu: expected %.9g, got %.9g, allowed difference %.3g; this machine or engine does "
          "not reproduce the package, do not use it here",
          package.label().c_str(), image, quantity, index, double{expected}, double{got}, double{allowed()});
    }
    return scale > 0 ? difference / scale : 0;
  }
};

std::vector<std::unique_ptr<Product>> products_of(const Package& package, const Config& config,
                                                  const KernelTable& kernels, Memory& memory) {
  std::vector<std::unique_ptr<Product>> products;
  for (std::string& name : read_products(package)) {
    const auto number = static_cast<uint32_t>(products.size());
    products.push_back(std::make_unique<Product>(package, config, kernels, memory, number, std::move(name)));
  }
  return products;
}

}  // namespace

Session::Session(std::shared_ptr<const Package> package, const SessionOptions& options)
    : package_(std::move(package)),
      memory_(options.allocator, options.memory_limit_bytes),
      config_(read_config(*package_)),
      kernels_(onceover::kernels()),
      products_(products_of(*package_, config_, kernels_, memory_)),
      selected_(products_.size() == 1 ? 0 : kAutomatic),
      pool_(options.engine.threads > 0 ? static_cast<size_t>(options.engine.threads) : 1, options.cpu_mask,
            options.engine.name == "openvino"),
      embedder_(config_, graph_of(*package_), options.engine, memory_),
      scorer_(config_, pool_.threads(), memory_),
      map_(config_.tiles().height(), config_.tiles().width(), config_.map_height(), config_.map_width(),
           config_.blur_sigma, memory_, kernels_),
      regions_(options.max_map_width > 0 ? options.max_map_width : config_.map_width(), memory_) {
  scorer_.reserve(products_, memory_);
  const bool any_gate = std::any_of(products_.begin(), products_.end(), [](const auto& p) { return p->has_gate(); });
  const bool any_adaptation =
      std::any_of(products_.begin(), products_.end(), [](const auto& p) { return !p->adaptation().none(); });
  if (any_adaptation) {
    adapted_ = Buffer<float>(memory_, config_.feature_count() * config_.embedding_dim, "adapted features");
  }
  if (any_gate) pooled_ = Buffer<float>(memory_, config_.embedding_dim, "pooled features");
  if (!options.touch_pages) return;
  for (const MemberView& member : package_->members()) {
    touch_pages(member.data, static_cast<size_t>(member.size_bytes));
  }
}

void Session::require_gate(const Product& product) const {
  if (product.has_gate()) return;
  if (products_.size() == 1) {
    fail(Status::kUsage,
         "%s: has no gate, so nothing tells whether its product is in view; inspect without, or fit with held-out "
         "parts (an export keeps it with the original images, --refit)",
         package_->label().c_str());
  }
  fail(Status::kUsage, "%s: product '%s' has no gate, so that products are not told apart; name the product",
       package_->label().c_str(), product.name().c_str());
}

void Session::select(uint32_t product) {
  if (product != kAutomatic && product >= products_.size()) {
    fail(Status::kUsage, "%s: product number %u, expected 0 to %zu", package_->label().c_str(), product,
         products_.size() - 1);
  }
  for (const auto& each : products_) {
    if (product == kAutomatic) require_gate(*each);
  }
  has_run_ = false;
  selected_ = product;
  active_ = product == kAutomatic ? 0 : product;
}

Product& Session::own_product() {
  if (selected_ == kAutomatic && products_.size() > 1) {
    fail(Status::kUsage, "a threshold belongs to one of %zu products; select it first", products_.size());
  }
  return *products_[active_];
}

// A tie goes to the first one.
void Session::choose(MatrixView<const float> embeddings) {
  result_.gate_ratio = 0;
  if (selected_ != kAutomatic) {
    active_ = selected_;
    return;
  }
  for (uint32_t i = 0; i < products_.size(); ++i) {
    require_gate(*products_[i]);
    const double ratio = products_[i]->gate_ratio(embeddings, pooled_.data());
    if (i > 0 && !(ratio < result_.gate_ratio)) continue;
    active_ = i;
    result_.gate_ratio = ratio;
  }
}

void Session::require_run() const {
  if (!has_run_) fail(Status::kUsage, "this session has no result yet, or its last run failed; call run first");
}

const Result& Session::run(const ImageView& image) {
  has_run_ = false;
  score(image);
  return decide();
}

const Result& Session::run_features(MatrixView<const float> embeddings) {
  has_run_ = false;
  if (embeddings.rows != config_.feature_count() || embeddings.columns != config_.embedding_dim) {
    fail(Status::kUsage, "features are %zu x %zu, this package has %zu patches of %u values", embeddings.rows,
         embeddings.columns, config_.feature_count(), config_.embedding_dim);
  }
  for (size_t patch = 0; patch < embeddings.rows; ++patch) {
    if (!all_finite(embeddings.row(patch), embeddings.columns)) {
      fail(Status::kEngine, "the features of patch %zu hold a NaN or infinity; the image gets no verdict", patch);
    }
  }
  result_.timing = {};
  score({embedder_.keep(embeddings), config_.feature_count(), config_.embedding_dim});
  return decide();
}

const Result& Session::decide() {
  result_.threshold = active().threshold();
  result_.decision = result_.gate_ratio > 1 ? Decision::kWrongPart : decision_of(result_.score, active().threshold());
  has_run_ = true;
  return result_;
}

size_t Session::find_regions(MatrixView<const float> map, MapRegion* regions, size_t capacity) {
  require_run();
  regions_.check_width(map.columns);  // for good parts, too: else it shows at the first bad one, on the line
  if (result_.decision != Decision::kAnomalous) return 0;
  return regions_.find(map, active().map_threshold(), regions, capacity);
}

void Session::draw_map(MatrixView<float> out) {
  require_run();
  map_.resize_to(out);
  active().roi().clear_outside(out);
}

void Session::score(const ImageView& image) {
  const float* embeddings = embedder_.embed(image, result_.timing);
  score({embeddings, config_.feature_count(), config_.embedding_dim});
}

void Session::score(MatrixView<const float> queries) {
  const auto scoring = Clock::now();
  choose(queries);
  const Product& product = active();
  result_.product = active_;
  features_ = queries;
  if (!product.adaptation().none()) {
    product.adaptation().apply(pool_, queries, adapted_.data(), kernels_);
    features_.data = adapted_.data();
  }
  scorer_.run(pool_, product, features_, kernels_);
  const size_t worst = scorer_.worst();
  result_.score = scorer_.scores()[worst];
  if (!std::isfinite(result_.score)) {
    fail(Status::kEngine, "%s: the image score is not finite (patch %zu); the image gets no verdict",
         package_->label().c_str(), worst);
  }
  result_.worst_patch = static_cast<uint32_t>(worst);
  result_.nearest_row = scorer_.rows()[worst];

  const auto drawing = Clock::now();
  const MatrixView<const float> map = map_.draw(scorer_.drawn());
  result_.map_maximum = product.roi().whole() ? map_.maximum() : product.roi().largest_inside(map);
  const auto end = Clock::now();

  result_.p_value = product.calibration().p_value(result_.score);
  result_.timing.score_ns = passed_ns(scoring, drawing);
  result_.timing.map_ns = passed_ns(drawing, end);
}

void Session::apply(const std::vector<BankChanges>& changes, size_t max_added_rows) {
  if (changes.size() != products_.size()) {
    fail(Status::kUsage, "%s: corrections of %zu products, the package has %zu", package_->label().c_str(),
         changes.size(), products_.size());
  }
  size_t scratch = 0;
  for (const auto& each : products_) scratch = std::max(scratch, each->scratch_bytes(max_added_rows));
  scorer_.reserve_scratch(pool_.threads() * scratch, memory_);
  std::vector<std::unique_ptr<Product::Change>> ready;
  try {
    for (size_t i = 0; i < products_.size(); ++i) {
      if (products_[i]->has_applied(changes[i], max_added_rows)) continue;
      ready.push_back(std::make_unique<Product::Change>(*products_[i], *package_, config_, changes[i], max_added_rows,
                                                        kernels_, memory_));
    }
  } catch (...) {
    while (!ready.empty()) ready.pop_back();  // an arena takes back what it gave last
    throw;
  }
  for (const auto& each : ready) each->commit();
  has_run_ = false;
}

Candidate Session::candidate(std::vector<float>& rows) const {
  require_run();
  if (result_.decision == Decision::kWrongPart) {
    fail(Status::kUsage,
         "the last image is %s (%.4g times as far away as the nearest gate allows), and no correction changes a gate; "
         "select the product that it shows, and run it again",
         name_of(result_.decision), result_.gate_ratio);
  }
  if (result_.decision != Decision::kAnomalous) {
    fail(Status::kUsage,
         "the last image is %s (score %.6g, threshold %.6g); only a false alarm, above a threshold, can be corrected",
         name_of(result_.decision), double{result_.score}, double{result_.threshold});
  }
  Candidate found;
  found.score = result_.score;
  found.threshold = result_.threshold;
  // Of each cell the feature whose score counts: with it in the bank, the cell is as near as it.
  const std::vector<uint32_t> features = scorer_.features();
  const size_t dims = config_.embedding_dim;
  std::vector<float> seen;
  for (const uint32_t feature : features) {
    seen.insert(seen.end(), embeddings().row(feature), embeddings().row(feature) + dims);
  }
  found.patches = cover({seen.data(), features.size(), dims}, scorer_.scores().data(), result_.threshold,
                        active().position_weights());
  rows.clear();
  for (uint32_t& patch : found.patches) {
    patch = features[patch];
    rows.insert(rows.end(), embeddings().row(patch), embeddings().row(patch) + dims);
  }
  return found;
}

Session::SelfTest Session::self_test() {
  has_run_ = false;
  const uint32_t selected = selected_, active = active_;
  SelfTest report;
  try {
    for (uint32_t product = 0; product < products_.size(); ++product) replay(product, report);
  } catch (...) {
    selected_ = selected;
    active_ = active;
    throw;
  }
  selected_ = selected;
  active_ = active;
  return report;
}

void Session::replay(uint32_t number, SelfTest& report) {
  const Product::FittedOnly without_corrections(*products_[number]);
  selected_ = active_ = number;
  const Parity parity = read_parity(*package_, config_, number);
  if (parity.images.empty()) {
    fail(Status::kVerification,
         "%s: the parity record has no reference images, so nothing proves that this machine reproduces the package; "
         "fit it again",
         package_->label().c_str());
  }
  std::vector<float> pixels(config_.map_height() * config_.map_width());  // of the map, as draw_map gives it
  report.tolerance = std::max(report.tolerance, parity.relative_tolerance);
  for (size_t i = 0; i < parity.images.size(); ++i) {
    const ParityImage& expected = parity.images[i];
    score(expected.image);
    const Result& got = result_;

    const size_t patches = config_.cell_count();
    const float largest = expected.patch_scores[first_maximum(expected.patch_scores, patches)];
    const Replay replay{*package_, i, parity.relative_tolerance, std::max(largest, expected.score)};
    double& worst = report.largest_relative_difference;
    worst = std::max(worst, replay.compare("score of patch", got.worst_patch, expected.score, got.score));
    for (size_t p = 0; p < patches; ++p) {
      worst = std::max(worst, replay.compare("patch score", p, expected.patch_scores[p], scorer_.scores()[p]));
    }
    const float* sample = expected.map;
    std::copy_n(map_.map().data, pixels.size(), pixels.data());
    const MatrixView<float> map(pixels.data(), config_.map_height(), config_.map_width());
    active().roi().clear_outside(map);
    for (size_t y = 0; y < map.rows; y += parity.map_step) {
      for (size_t x = 0; x < map.columns; x += parity.map_step, ++sample) {
        const double difference = replay.compare("map pixel", y * map.columns + x, *sample, map.row(y)[x]);
        report.largest_map_difference = std::max(report.largest_map_difference, difference);
      }
    }
    const auto verdict = static_cast<Decision>(expected.verdict);
    const Calibration& calibration = active().calibration();
    const bool near_threshold =
        calibration.calibrated && std::fabs(got.score - calibration.threshold) <= replay.allowed();
    const Decision decision = decision_of(got.score, calibration.threshold);
    if (decision != verdict && !near_threshold) {
      fail(Status::kVerification, "%s: parity image %zu, verdict: expected %s, got %s (score %.9g, threshold %.9g)",
           package_->label().c_str(), i, name_of(verdict), name_of(decision), double{got.score},
           double{calibration.threshold});
    }
    ++report.images;
  }
}

size_t corrected_memory_bytes(const Package& package, size_t max_added_rows, size_t threads) {
  const Config config = read_config(package);
  const size_t products = read_products(package).size();
  size_t bytes = 0, scratch = 0;
  for (uint32_t number = 0; number < products; ++number) {
    Memory memory;
    Product product(package, config, kernels(), memory, number);
    const size_t before = memory.used_bytes();
    Product::Change(product, package, config, {}, max_added_rows, kernels(), memory).commit();
    bytes += memory.used_bytes() - before;
    scratch = std::max(scratch, threads * product.scratch_bytes(max_added_rows));
  }
  // A buffer may begin anywhere in an arena, and the old scratch is not given back there.
  return bytes + (scratch + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
}

}  // namespace onceover
