#include "package/products.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "package/fields.h"

namespace onceover {
namespace {

void check_name(const std::string& name, size_t index, const Fields& fields) {
  const std::string field = "name[" + std::to_string(index) + "]";
  if (name.empty() || name.size() > kMaxProductNameBytes) {
    fields.refuse(field, std::to_string(name.size()) + " bytes long", "1 to " + std::to_string(kMaxProductNameBytes));
  }
  const bool printable =
      std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (!printable) fields.refuse(field, "text with a control character", "text without");
}

void check_names(const std::vector<std::string>& names, const Fields& fields) {
  fields.within("product_count", static_cast<uint32_t>(std::min<size_t>(names.size(), UINT32_MAX)), 2u, kMaxProducts);
  for (size_t i = 0; i < names.size(); ++i) {
    check_name(names[i], i, fields);
    for (size_t j = 0; j < i; ++j) {
      if (names[i] == names[j]) fields.refuse("name[" + std::to_string(i) + "]", "'" + names[i] + "'", "another one");
    }
  }
}

void check_gate(const GateModel& gate, const Fields& fields) {
  fields.within("rank", gate.rank, 0u, std::min(gate.dims, kMaxGateRank));
  const auto positive = [&](const char* field, const float* values, size_t count) {
    fields.finite(field, values, count);
    for (size_t i = 0; i < count; ++i) {
      if (!(values[i] > 0)) fields.refuse(field, text_of(double{values[i]}), "a positive number");
    }
  };
  positive("threshold", &gate.threshold, 1);
  positive("isotropic", &gate.isotropic, 1);
  positive("weights", gate.weights, gate.rank);
  fields.finite("mean", gate.mean, gate.dims);
  fields.finite("axes", gate.axes, size_t{gate.rank} * gate.dims);
}

// A required member of a product that there is not, or a second one of what all share, would be ignored silently.
void check_numbered_members(const Package& package, size_t product_count) {
  for (const MemberView& member : package.members()) {
    const size_t dot = member.name.find_last_of('.');
    if (!member.required || dot == std::string_view::npos || !is_known_member(member.name)) continue;
    const std::string_view base = member.name.substr(0, dot);
    if (!is_known_member(base)) continue;  // "graph.onnx"
    const auto number = std::strtoul(std::string(member.name.substr(dot + 1)).c_str(), nullptr, 10);
    const bool shared = base == "config" || base == "manifest.json" || base == "graph.onnx" || base == "products";
    if (!shared && number < product_count) continue;
    fail(Status::kPackage, "%s: member '%s' is required, and belongs to none of %zu products; write it again",
         package.label().c_str(), std::string(member.name).c_str(), product_count);
  }
}

}  // namespace

std::vector<std::string> read_products(const Package& package) {
  const MemberView* member = package.find("products");
  if (member == nullptr) {
    check_numbered_members(package, 1);
    return {std::string()};
  }
  const Fields fields(package, "products");
  ProductsHeader header;
  fields.within("size in bytes", member->size_bytes, uint64_t{sizeof header}, UINT64_MAX);
  std::memcpy(&header, member->data, sizeof header);
  fields.record_size(header.record_bytes, sizeof(ProductRecord), kMaxEntryBytes);
  fields.within("product_count", header.product_count, 2u, kMaxProducts);
  fields.zeros(header.zeros, sizeof header.zeros);
  fields.equal("size in bytes", member->size_bytes,
               sizeof header + uint64_t{header.product_count} * header.record_bytes);
  std::vector<std::string> names;
  for (uint32_t i = 0; i < header.product_count; ++i) {
    ProductRecord record;
    std::memcpy(&record, member->data + sizeof header + uint64_t{i} * header.record_bytes, sizeof record);
    const size_t length = std::find(record.name, record.name + sizeof record.name, '\0') - record.name;
    fields.zeros(record.name + length, sizeof record.name - length);
    fields.zeros(record.zeros, sizeof record.zeros);
    names.emplace_back(record.name, length);
  }
  check_names(names, fields);
  check_numbered_members(package, names.size());
  return names;
}

std::vector<uint8_t> write_products(const std::vector<std::string>& names) {
  check_names(names, Fields("products"));
  ProductsHeader header{};
  header.record_bytes = sizeof(ProductRecord);
  header.product_count = static_cast<uint32_t>(names.size());
  std::vector<uint8_t> out(sizeof header + names.size() * sizeof(ProductRecord));
  std::memcpy(out.data(), &header, sizeof header);
  for (size_t i = 0; i < names.size(); ++i) {
    std::memcpy(out.data() + sizeof header + i * sizeof(ProductRecord), names[i].data(), names[i].size());
  }
  return out;
}

double GateModel::distance(const float* pooled) const noexcept {
  double whole = 0, along = 0, weighted = 0;  // |z|², that within the axes, and that within them weighted
  for (uint32_t d = 0; d < dims; ++d) {
    const double z = double{pooled[d]} - double{mean[d]};
    whole += z * z;
  }
  for (uint32_t i = 0; i < rank; ++i) {
    const float* axis = axes + size_t{i} * dims;
    double product = 0;
    for (uint32_t d = 0; d < dims; ++d) product += (double{pooled[d]} - double{mean[d]}) * double{axis[d]};
    along += product * product;
    weighted += double{weights[i]} * product * product;
  }
  return std::sqrt(weighted + double{isotropic} * std::max(0.0, whole - along));
}

bool read_gate(const Package& package, const Config& config, uint32_t product, GateModel& gate) {
  const std::string name = member_name("gate", product);
  const MemberView* member = package.find(name);
  if (member == nullptr) return false;
  const Fields fields(package, name.c_str());
  GateRecord record;
  fields.within("size in bytes", member->size_bytes, uint64_t{sizeof record}, UINT64_MAX);
  std::memcpy(&record, member->data, sizeof record);
  fields.record_size(record.record_bytes, sizeof record, UINT32_MAX);
  fields.equal("dims", record.dims, config.embedding_dim);
  fields.within("rank", record.rank, 0u, std::min(record.dims, kMaxGateRank));
  const uint64_t floats = uint64_t{record.dims} + record.rank + uint64_t{record.rank} * record.dims;
  if (record.record_bytes % 4 != 0 || record.record_bytes + floats * sizeof(float) != member->size_bytes) {
    fields.refuse("record_bytes, dims, rank",
                  text_of(record.record_bytes) + ", " + text_of(record.dims) + ", " + text_of(record.rank),
                  "values for " + text_of(member->size_bytes) + " bytes");
  }
  fields.zeros(record.zeros, sizeof record.zeros);
  gate.dims = record.dims;
  gate.rank = record.rank;
  gate.part_count = record.part_count;
  gate.threshold = record.threshold;
  gate.isotropic = record.isotropic;
  gate.mean = reinterpret_cast<const float*>(member->data + record.record_bytes);
  gate.weights = gate.mean + gate.dims;
  gate.axes = gate.weights + gate.rank;
  check_gate(gate, fields);
  return true;
}

std::vector<uint8_t> write_gate(const GateModel& gate) {
  check_gate(gate, Fields("gate"));
  GateRecord record{};
  record.record_bytes = sizeof record;
  record.dims = gate.dims;
  record.rank = gate.rank;
  record.part_count = gate.part_count;
  record.threshold = gate.threshold;
  record.isotropic = gate.isotropic;
  std::vector<uint8_t> out(sizeof record);
  std::memcpy(out.data(), &record, sizeof record);
  const auto append = [&out](const float* values, size_t count) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(values);
    out.insert(out.end(), bytes, bytes + count * sizeof(float));
  };
  append(gate.mean, gate.dims);
  append(gate.weights, gate.rank);
  append(gate.axes, size_t{gate.rank} * gate.dims);
  return out;
}

}  // namespace onceover
