// libFuzzer target of the package reader and of everything that reads members without an engine: config, calibration,
// parity images (prepared for the network), memory bank and search index (searched), products, gates and regions of
// interest, and what corrections calibrate by again (corrected). `make fuzz` runs it.
//
// Every byte of a package is hashed, so that a mutated one would not get far. Each input is tried as it is, and again
// with its hashes made right, and again with what else a table of contents says about the end of the file made right.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "image/anomaly_map.h"
#include "image/prepare.h"
#include "kernels/dispatch.h"
#include "package/config.h"
#include "package/reader.h"
#include "package_samples.h"
#include "scoring/search.h"
#include "session/bank_members.h"
#include "session/session.h"

namespace {

using namespace onceover;
using Bytes = std::vector<uint8_t>;

constexpr size_t kMemoryLimit = size_t{256} << 20;  // of our buffers, as a device sets one
constexpr uint32_t kProducts = 3;                   // of which members are read: more are not read otherwise
constexpr size_t kLargestWork = size_t{1} << 18;    // pixels or multiplications: slower inputs find no more

void must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz_package: accepted, but %s\n", what);
  std::abort();
}

void use_calibration(const Package& package, uint32_t product) {
  const Calibration calibration = read_calibration(package, product);
  for (const float score : {-1.0f, 0.0f, 1e30f, std::nanf("")}) {
    const double p_value = calibration.p_value(score);
    must(p_value > 0 && p_value <= 1, "a p-value is not above 0 and at most 1");
    const double of_region = calibration.map_p_value(score);
    must(of_region > 0 && of_region <= 1, "the p-value of a region is not above 0 and at most 1");
  }
  must(!calibration.calibrated || std::isfinite(calibration.threshold), "a threshold is not finite");
}

// Prepares every reference image and draws its expected patch scores, as a session would.
void use_parity(const Package& package, const Config& config, uint32_t product) {
  const Parity parity = read_parity(package, config, product);
  const size_t pixels = size_t{config.preprocessing.height} * config.preprocessing.width;
  const size_t map_pixels = config.map_height() * config.map_width();
  if (pixels > kLargestWork || map_pixels > kLargestWork) return;
  Memory memory(heap_allocator(), kMemoryLimit);
  Preparer preparer(config.preprocessing, memory);
  Buffer<float> input(memory, 3 * pixels, "network input");
  AnomalyMap map(config.tiles().height(), config.tiles().width(), config.map_height(), config.map_width(),
                 config.blur_sigma, memory);
  const Roi roi = read_roi(package, product);
  for (const ParityImage& image : parity.images) {
    preparer.run(image.image, input.data());
    for (const float value : input) must(std::isfinite(value), "a network input is not finite");
    const float largest = roi.largest_inside(map.draw(image.patch_scores));
    must(!std::isnan(largest), "the largest value of a map is not a number");
  }
}

uint32_t products_in(const Package& package) {
  const std::vector<std::string> names = read_products(package);
  must(names.size() >= 1 && names.size() <= kMaxProducts, "there are no products, or too many");
  return static_cast<uint32_t>(names.size());
}

// What a session asks a product for one image: which features it searches for, its region, its gate.
void use_product(const Package& package, const Config& config, uint32_t number) {
  const size_t cells = config.cell_count(), features = config.feature_count();
  if (cells > kLargestWork || features * config.embedding_dim > kLargestWork) return;
  Memory memory(heap_allocator(), kMemoryLimit);
  const Product product(package, config, kernels(), memory, number);
  must(product.roi().whole() == (product.searched().size() == 0), "a region of interest has no patches");
  for (size_t i = 0; i < product.searched().size(); ++i) {
    must(product.searched()[i] < features, "a patch of the region of interest is none of the image");
  }
  std::vector<float> scores(cells, 1), continued(cells), pooled(config.embedding_dim);
  std::vector<uint32_t> rows(cells);
  must(product.mask(scores.data(), rows.data(), continued.data()) < cells, "no cell is inside");
  if (!product.has_gate()) return;
  const std::vector<float> seen(features * config.embedding_dim, 0.5f);
  const double ratio = product.gate_ratio({seen.data(), features, config.embedding_dim}, pooled.data());
  must(ratio >= 0, "the distance of a gate is negative or not a number");
}

// One row joins the memory bank and one leaves it: the held-out parts are scored again.
void use_corrections(const Package& package, const Config& config, uint32_t number) {
  const MatrixView<const float> bank = memory_bank_of(package, config, number);
  const Calibration calibration = read_calibration(package, number);
  const size_t images = calibration.image_count, map_pixels = config.map_height() * config.map_width();
  const size_t image_work = map_pixels + bank.rows * bank.columns;
  if (image_work > kLargestWork || images > 4 * kLargestWork / image_work) return;
  if (!read_calibration_patches(package, config, calibration, bank.rows, number)) return;
  Memory memory(heap_allocator(), kMemoryLimit);
  Product product(package, config, kernels(), memory, number);
  BankChanges changes;
  changes.numbers = {static_cast<uint32_t>(bank.rows)};
  changes.added.assign(config.embedding_dim, 0.25f);
  changes.removed = {0};
  Product::Change(product, package, config, changes, 2, kernels(), memory).commit();
  const Calibration& made = product.calibration();
  must(made.n == calibration.n, "a calibration lost parts");
  must(std::is_sorted(made.scores, made.scores + made.n), "scores of a corrected calibration are not sorted");
  must(!made.calibrated || made.threshold >= calibration.threshold, "a threshold fell");
}

void use_bank(const Package& package, const Config& config, uint32_t product) {
  Memory memory(heap_allocator(), kMemoryLimit);
  const MatrixView<const float> bank = memory_bank_of(package, config, product);
  Buffer<uint8_t> own_index;
  const SearchIndex index = index_of(package, bank, kernels(), memory, own_index, product);
  if (bank.rows * bank.columns > kLargestWork) return;
  const auto find = [&](size_t count, size_t k) {
    std::vector<float> values;
    for (size_t q = 0; q < count; ++q) {
      values.insert(values.end(), bank.row(q % bank.rows), bank.row(q % bank.rows) + bank.columns);
    }
    const MatrixView<const float> queries(values.data(), count, bank.columns);
    Buffer<uint8_t> scratch(memory, search_scratch_bytes(index, k), "search scratch");
    std::vector<float> distances(count * k);
    std::vector<uint32_t> rows(count * k);
    static const std::vector<const KernelTable*> tables = available_kernels();
    for (const KernelTable* table : {tables.front(), tables.back()}) {  // this machine's best, and scalar
      SearchStats stats;
      search(index, queries, k, distances.data(), rows.data(), *table, scratch.data(), stats);
      for (const uint32_t row : rows) must(row < bank.rows || row == kNoRow, "a neighbor is no row of the bank");
    }
  };
  find(20, 3);
  find(33, 1);  // enough queries of few neighbors: screened by a part of the coordinates where the index says so
}

// Each reader on its own: a damaged config must not hide the others.
template <typename Read>
void attempt(Read&& read) {
  try {
    read();
  } catch (const Error&) {  // what is refused is refused by an Error; anything else ends the process
  }
}

bool use(const Bytes& bytes) {
  const samples::ExactCopy copy(bytes.data(), bytes.size());
  std::shared_ptr<const Package> package;
  attempt([&] { package = copy.view(); });
  if (package == nullptr) return false;
  Config config = samples::sample_config();
  attempt([&] { config = read_config(*package); });
  uint32_t products = 1;
  attempt([&] { products = products_in(*package); });
  for (uint32_t product = 0; product < std::min(products, kProducts); ++product) {
    attempt([&] { use_calibration(*package, product); });
    attempt([&] { use_parity(*package, config, product); });
    attempt([&] { use_product(*package, config, product); });
    attempt([&] { use_bank(*package, config, product); });
    attempt([&] { use_corrections(*package, config, product); });
  }
  return true;
}

// The last member ends the file: what a mutation that inserts or removes bytes breaks first.
void fit_to_size(samples::Forgery& forgery) {
  FileHeader* header = forgery.header();
  std::memcpy(header->magic, kMagic, sizeof kMagic);
  header->file_bytes = forgery.bytes.size();
  header->entry_bytes = sizeof(TableEntry);
  TableEntry& last = *forgery.entry(header->member_count - 1);
  if (last.offset >= forgery.bytes.size()) return;
  last.size_bytes = last.dimensions[0] = forgery.bytes.size() - last.offset;
  last.type = static_cast<uint32_t>(DataType::kBytes);
  last.dimension_count = 1;
}

bool has_table(samples::Forgery& forgery) {
  const uint32_t count = forgery.bytes.size() < sizeof(FileHeader) ? 0 : forgery.header()->member_count;
  return count >= 1 && count <= kMaxMembers && forgery.id_offset() + sizeof(Digest) <= forgery.bytes.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || use(Bytes(data, data + size))) return 0;
  samples::Forgery forgery;
  forgery.bytes.assign(data, data + size);
  if (!has_table(forgery) || use(forgery.sealed())) return 0;
  fit_to_size(forgery);
  use(forgery.sealed());
  return 0;
}
