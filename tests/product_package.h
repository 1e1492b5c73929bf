// A package of two products on the network of host_network.h, with a gate each.
#pragma once

#include <string>
#include <vector>

#include "base/finite.h"
#include "host_package.h"
#include "package/products.h"

namespace host_package {

// A gate around the mean features of `image`, isotropic with variance 1/weight.
inline std::vector<uint8_t> gate_around(const ImageView& image, float weight) {
  Memory memory;
  const std::vector<uint8_t> graph(64, 'n');
  Embedder embedder(config(), {graph.data(), graph.size()}, session_options().engine, memory);
  Timing timing;
  const float* features = embedder.embed(image, timing);
  std::vector<float> mean(HOST_DIM);
  for (size_t i = 0; i < HOST_PATCHES * HOST_DIM; ++i) mean[i % HOST_DIM] += features[i] / HOST_PATCHES;
  GateModel gate;
  gate.dims = HOST_DIM;
  gate.threshold = 3;
  gate.isotropic = weight;
  gate.mean = mean.data();
  return write_gate(gate);
}

inline Image dark(uint32_t seed) {  // another product: a tenth as bright
  Image image = host_package::image(seed);
  for (uint8_t& value : image.pixels) value = static_cast<uint8_t>(value / 10);
  return image;
}

// Two products with the members of one package, which differ in their gates; the second has a region of interest.
// stray: one more member, required. adaptation: of the second product; one that no session takes is put in behind its
// making. weights: by position, of the second product.
inline std::vector<uint8_t> two_products(bool second_gate = true, const char* stray = nullptr,
                                         std::vector<float> adaptation = {}, std::vector<float> weights = {}) {
  static std::vector<std::vector<uint8_t>> kept;
  const bool usable = adaptation.size() == HOST_DIM * HOST_DIM && all_finite(adaptation.data(), adaptation.size());
  const Kind second{
      true, true, {}, std::vector<uint8_t>(64, 1), usable ? adaptation : std::vector<float>(), std::move(weights)};
  const std::vector<uint8_t> files[] = {host_package::bytes(), host_package::bytes(second)};
  PackageWriter writer;
  const auto add = [&writer](const std::string& name, std::vector<uint8_t> data, bool required) {
    kept.push_back(std::move(data));
    writer.add(name, kept.back().data(), kept.back().size(), DataType::kBytes, {}, required);
  };
  add("products", write_products({"bright", "dark"}), true);
  for (uint32_t product = 0; product < 2; ++product) {
    const auto package = Package::view(files[product].data(), files[product].size(), "one");
    for (const MemberView& member : package->members()) {
      const bool shared = member.name == "config" || member.name == "graph.onnx" || member.name == "manifest.json";
      if (shared && product > 0) continue;
      kept.emplace_back(member.data, member.data + member.size_bytes);
      std::vector<uint64_t> dimensions(member.dimensions.begin(), member.dimensions.begin() + member.dimension_count);
      writer.add(member_name(member.name, product), kept.back().data(), kept.back().size(), member.type, dimensions,
                 member.required);
    }
    if (product == 0 || second_gate) {
      add(member_name("gate", product), gate_around((product == 0 ? image(3) : dark(3)).view, 100), false);
    }
  }
  if (!usable && !adaptation.empty()) {
    writer.add("adaptation.1", adaptation.data(), adaptation.size() * sizeof(float), DataType::kFloat32,
               {adaptation.size() / HOST_DIM, HOST_DIM}, true);
  }
  if (stray != nullptr) add(stray, {1}, true);
  return writer.bytes();
}

}  // namespace host_package
