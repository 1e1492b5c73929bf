// The package of host_package.h with all that corrections and compacting work on: what held-out parts score again by,
// where the rows came from, their neighbors, a gate, pictures, and a member of a version to come.
#pragma once

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "product_package.h"
#include "scoring/memory_bank.h"

namespace host_package {

using NewMembers = std::vector<std::pair<std::string, std::vector<uint8_t>>>;

// A package without the members `dropped` and with others, of bytes; what is known as required stays so.
inline std::vector<uint8_t> with_members(const std::vector<uint8_t>& bytes, const NewMembers& added,
                                         const std::vector<std::string>& dropped) {
  const auto package = Package::view(bytes.data(), bytes.size(), "to be changed");
  PackageWriter writer;
  for (const MemberView& member : package->members()) {
    if (std::find(dropped.begin(), dropped.end(), member.name) != dropped.end()) continue;
    const std::vector<uint64_t> dimensions(member.dimensions.begin(),
                                           member.dimensions.begin() + member.dimension_count);
    writer.add(std::string(member.name), member.data, member.size_bytes, member.type, dimensions, member.required);
  }
  for (const auto& [name, content] : added) {
    writer.add(name, content.data(), content.size(), DataType::kBytes, {}, name == "graph.onnx" || name == "parity");
  }
  return writer.bytes();
}

// The member "calibration_patches" of the held-out parts that host_package.h calibrated with; 4 patches are tracked.
inline std::vector<uint8_t> held_out_patches(const std::vector<uint8_t>& file) {
  constexpr uint32_t kImages = 19, kTracked = 4;
  Session session(Package::view(file.data(), file.size(), "host"), session_options());
  const size_t count = session.config().cell_count();
  std::vector<uint32_t> parts, nearest, chosen;
  std::vector<float> distances, embeddings;
  for (uint32_t i = 0; i < kImages; ++i) {
    session.run(image(100 + i).view);
    parts.push_back(i);
    distances.insert(distances.end(), session.patch_distances(), session.patch_distances() + count);
    nearest.insert(nearest.end(), session.nearest_rows(), session.nearest_rows() + count);
    const std::vector<uint32_t> features = session.patch_features();
    std::vector<uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0u);
    const float* own = session.patch_scores();
    std::stable_sort(order.begin(), order.end(), [own](uint32_t a, uint32_t b) { return own[a] > own[b]; });
    for (uint32_t t = 0; t < kTracked; ++t) {
      chosen.push_back(order[t]);
      const float* row = session.embeddings().row(features[order[t]]);
      embeddings.insert(embeddings.end(), row, row + HOST_DIM);
    }
  }
  CalibrationPatchesRecord record{};
  record.record_bytes = sizeof record;
  record.image_count = kImages;
  record.tracked = kTracked;
  record.patch_count = static_cast<uint32_t>(count);
  record.dims = HOST_DIM;
  std::vector<uint8_t> out(sizeof record);
  std::memcpy(out.data(), &record, sizeof record);
  const auto add = [&out](const void* from, size_t words) {
    const auto* bytes = static_cast<const uint8_t*>(from);
    out.insert(out.end(), bytes, bytes + 4 * words);
  };
  add(parts.data(), parts.size());
  add(distances.data(), distances.size());
  add(nearest.data(), nearest.size());
  add(chosen.data(), chosen.size());
  add(embeddings.data(), embeddings.size());
  return out;
}

inline std::vector<uint8_t> correctable_bytes(Kind kind = {}) {
  std::vector<uint8_t> file = bytes(kind);
  std::string names, digests;
  for (uint32_t image = 0; image < kind.fitted_images; ++image) {
    names += (image == 0 ? "\"" : ", \"") + std::to_string(image) + ".png\"";
    digests += (image == 0 ? "\"" : ", \"") + std::string(64, 'a') + "\"";
  }
  const std::string manifest =
      "{\"data\": {\"bank_images\": [" + names + "], \"bank_sha256\": [" + digests +
      "]}, \"detector\": {\"bank_rows\": " + std::to_string(HOST_PATCHES * kind.fitted_images) +
      "}, \"name\": \"host\"}";
  const std::string future = "of_the_future";
  file = with_members(file,
                      {{"manifest.json", {manifest.begin(), manifest.end()}},
                       {"gate", gate_around(image(3).view, 100)},
                       {"calibration_patches", held_out_patches(file)},
                       {"thumbnails", {'j', 'p', 'e', 'g'}},
                       {future, {1}}},
                      {"manifest.json"});
  const auto package = Package::view(file.data(), file.size(), "host");
  const MemberView& bank = package->require("memory_bank");
  const auto rows = static_cast<size_t>(bank.dimensions[0]);
  std::vector<uint32_t> source, neighbors(rows * 3);
  const auto features = static_cast<uint32_t>(config(kind.tiling).feature_count());
  for (uint32_t row = 0; row < rows; ++row) source.insert(source.end(), {row / features, row % features});
  const MatrixView<const float> view(bank.as<float>(2), rows, HOST_DIM);
  const MemoryBank searched(view, {}, kernels());
  std::vector<float> distances(rows * 3);
  SearchStats stats;
  searched.search(view, 3, distances.data(), neighbors.data(), 1, stats);
  PackageWriter writer;
  for (const MemberView& member : package->members()) {
    const std::vector<uint64_t> dimensions(member.dimensions.begin(),
                                           member.dimensions.begin() + member.dimension_count);
    writer.add(std::string(member.name), member.data, member.size_bytes, member.type, dimensions, member.required);
  }
  writer.add("bank_source", source.data(), source.size() * 4, DataType::kUint32, {rows, 2}, false);
  writer.add("bank_neighbors", neighbors.data(), neighbors.size() * 4, DataType::kUint32, {rows, 3}, false);
  return writer.bytes();
}

// Two packages of one product each → one of both, as export/combine.py makes it: "bright" and "dark", whose gate is
// around dark images. manifest: another one than that tells.
inline std::vector<uint8_t> combined(const std::vector<uint8_t>& bright, const std::vector<uint8_t>& dark_one,
                                     std::string manifest = "") {
  const std::vector<uint8_t>* files[] = {&bright, &dark_one};
  const std::vector<uint8_t> names = write_products({"bright", "dark"}), gate = gate_around(dark(3).view, 100);
  std::vector<std::shared_ptr<const Package>> opened;  // the writer views their members
  std::string listed;
  PackageWriter writer;
  writer.add("products", names.data(), names.size(), DataType::kBytes, {}, true);
  for (uint32_t product = 0; product < 2; ++product) {
    opened.push_back(Package::view(files[product]->data(), files[product]->size(), "one"));
    const MemberView& own = opened.back()->require("manifest.json");
    listed += (product == 0 ? "" : ", ") + std::string(reinterpret_cast<const char*>(own.data), own.size_bytes);
    for (const MemberView& member : opened.back()->members()) {
      const bool is_shared = member.name == "config" || member.name == "graph.onnx";
      if (member.name == "manifest.json" || (is_shared && product > 0)) continue;
      const bool is_gate = member.name == "gate" && product == 1;
      const std::vector<uint64_t> dimensions(member.dimensions.begin(),
                                             member.dimensions.begin() + member.dimension_count);
      writer.add(member_name(member.name, product), is_gate ? gate.data() : member.data, member.size_bytes, member.type,
                 dimensions, member.required);
    }
  }
  if (manifest.empty()) manifest = "{\"name\": \"bright + dark\", \"products\": [" + listed + "]}";
  writer.add("manifest.json", manifest.data(), manifest.size(), DataType::kBytes, {}, false);
  return writer.bytes();
}

}  // namespace host_package
