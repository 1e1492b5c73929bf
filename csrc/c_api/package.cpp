// Packages in C: package/reader.h and package/config.h behind onceover.h.
#include "c_api/package.h"

#include <algorithm>
#include <cstddef>

#include "c_api/guard.h"
#include "package/config.h"
#include "package/products.h"

namespace onceover {

template <>
inline constexpr size_t kFirstSize<onceover_package_options> =
    offsetof(onceover_package_options, hash_small) + sizeof(uint32_t);
template <>
inline constexpr size_t kFirstSize<onceover_package_info> =
    offsetof(onceover_package_info, manifest_bytes) + sizeof(size_t);
template <>
inline constexpr size_t kFirstSize<onceover_product_info> =
    offsetof(onceover_product_info, has_gate) + sizeof(uint32_t);

namespace {

onceover_package_info describe(const Package& package) {
  const Config config = read_config(package);
  const Calibration calibration = read_calibration(package);
  onceover_package_info told = {};
  told.format_major = kFormatMajor;
  told.format_minor = package.minor_version();
  std::copy(package.id().begin(), package.id().end(), told.id);
  told.input_height = config.preprocessing.height;
  told.input_width = config.preprocessing.width;
  told.grid_height = config.grid_height;
  told.grid_width = config.grid_width;
  told.embedding_dim = config.embedding_dim;
  told.calibrated = calibration.calibrated ? 1 : 0;
  told.threshold = calibration.threshold;
  told.map_threshold = calibration.map_threshold;
  told.false_alarm_rate = calibration.false_alarm_rate;
  told.bank_rows = package.require("memory_bank").dimensions[0];
  if (const MemberView* manifest = package.find("manifest.json")) {
    told.manifest = reinterpret_cast<const char*>(manifest->data);
    told.manifest_bytes = static_cast<size_t>(manifest->size_bytes);
  }
  told.calibration_parts = calibration.n;
  told.cross_conformal = calibration.cross_conformal ? 1 : 0;
  told.confidence = calibration.confidence;
  const TileGrid tiles = config.tiles();
  told.tile_rows = config.tiling.rows;
  told.tile_columns = config.tiling.columns;
  told.score_height = static_cast<uint32_t>(tiles.height());
  told.score_width = static_cast<uint32_t>(tiles.width());
  told.map_height = static_cast<uint32_t>(config.map_height());
  told.map_width = static_cast<uint32_t>(config.map_width());
  told.has_roi = read_roi(package).whole() ? 0 : 1;
  told.product_count = static_cast<uint32_t>(read_products(package).size());
  return told;
}

onceover_product_info describe(const Package& package, uint32_t product) {
  const std::vector<std::string> names = read_products(package);
  if (product >= names.size()) fail(Status::kUsage, "product is %u, expected 0 to %zu", product, names.size() - 1);
  const Calibration calibration = read_calibration(package, product);
  GateModel gate;
  onceover_product_info told = {};
  std::copy(names[product].begin(), names[product].end(), told.name);
  told.calibrated = calibration.calibrated ? 1 : 0;
  told.threshold = calibration.threshold;
  told.map_threshold = calibration.map_threshold;
  told.false_alarm_rate = calibration.false_alarm_rate;
  told.bank_rows = package.require(member_name("memory_bank", product)).dimensions[0];
  told.has_roi = read_roi(package, product).whole() ? 0 : 1;
  told.has_gate = read_gate(package, read_config(package), product, gate) ? 1 : 0;
  return told;
}

}  // namespace
}  // namespace onceover

using namespace onceover;

onceover_status onceover_package_open(const char* path, const onceover_package_options* options,
                                      onceover_package** package) {
  return guarded(__func__, [&] {
    *required(package, "package") = nullptr;
    const onceover_package_options given = read_struct(options, "options");
    const OpenOptions open{given.hash_small != 0 ? HashedMembers::kSmall : HashedMembers::kAll, given.copy != 0};
    *package = new onceover_package{Package::open(required(path, "path"), open)};
  });
}

onceover_status onceover_package_view(const void* data, size_t bytes, onceover_package** package) {
  return guarded(__func__, [&] {
    *required(package, "package") = nullptr;
    const auto* first = static_cast<const uint8_t*>(required(data, "data"));
    *package = new onceover_package{Package::view(first, bytes, "package in memory")};
  });
}

onceover_status onceover_package_describe(const onceover_package* package, onceover_package_info* info) {
  return guarded(__func__, [&] {
    required(package, "package");
    check_struct_size(*required(info, "info"), "info");
    write_struct(describe(*package->package), *info);
  });
}

onceover_status onceover_package_find_member(const onceover_package* package, const char* name, const void** data,
                                             size_t* bytes) {
  return guarded(__func__, [&] {
    required(data, "data");
    required(bytes, "bytes");
    const MemberView* member = required(package, "package")->package->find(required(name, "name"));
    *data = member == nullptr ? nullptr : member->data;
    *bytes = member == nullptr ? 0 : static_cast<size_t>(member->size_bytes);
  });
}

onceover_status onceover_package_product(const onceover_package* package, uint32_t product,
                                         onceover_product_info* info) {
  return guarded(__func__, [&] {
    required(package, "package");
    check_struct_size(*required(info, "info"), "info");
    write_struct(describe(*package->package, product), *info);
  });
}

onceover_status onceover_package_verify(const onceover_package* package) {
  return guarded(__func__, [&] { required(package, "package")->package->check_members(); });
}

void onceover_package_free(onceover_package* package) { delete package; }
