// One small valid package for the tests of the package room, and the means to forge damaged ones.
#pragma once

#include <algorithm>
#include <cstring>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "package/config.h"
#include "package/reader.h"
#include "package/writer.h"

namespace samples {

using namespace onceover;

using Bytes = std::vector<uint8_t>;
using PackagePointer = std::shared_ptr<const Package>;

// Memory of exactly this size at a multiple of 64: read in place, and the first byte beyond it is out of bounds.
class ExactCopy {
 public:
  ExactCopy(const uint8_t* data, size_t size)
      : data_(static_cast<uint8_t*>(::operator new(size, std::align_val_t(64)))), size_(size) {
    if (size > 0) std::memcpy(data_, data, size);
  }
  ~ExactCopy() { ::operator delete(data_, std::align_val_t(64)); }
  ExactCopy(const ExactCopy&) = delete;
  ExactCopy& operator=(const ExactCopy&) = delete;
  PackagePointer view() const { return Package::view(data_, size_, "test"); }
  const uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
  size_t size_;
};

inline void open_bytes(const Bytes& bytes) { ExactCopy(bytes.data(), bytes.size()).view(); }

inline bool is_refused(const Bytes& bytes) {
  try {
    open_bytes(bytes);
  } catch (const Error& error) {
    return error.status() == Status::kPackage || error.status() == Status::kUnsupported;
  }
  return false;
}

inline Config sample_config() {
  Config config;
  config.preprocessing = {32, 48, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};
  config.grid_height = 4;
  config.grid_width = 6;
  config.embedding_dim = 16;
  config.blur_sigma = 4;
  return config;
}

// Everything a package holds, alive as long as the writer needs it.
struct Sample {
  Bytes config, manifest, graph, calibration, parity;
  std::vector<float> bank;
  std::vector<uint32_t> source = std::vector<uint32_t>(64 * 2, 3);
  std::vector<uint8_t> pixels;
  std::vector<float> patch_scores, map;

  Sample() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int i = 0; i < 64 * 16; ++i) bank.push_back(normal(random));
    const std::string text = "{\"name\": \"sample\"}";
    manifest.assign(text.begin(), text.end());
    for (int i = 0; i < 501; ++i) graph.push_back(static_cast<uint8_t>(random()));
    config = write_config(sample_config());
    std::vector<float> scores, maxima;
    for (int i = 0; i < 19; ++i) {
      scores.push_back(static_cast<float>((i * 7) % 19));
      maxima.push_back(static_cast<float>((i * 5) % 19) / 2);
    }
    calibration = write_calibration(true, 0.05, 18, 9, scores, maxima, 23);
    for (int i = 0; i < 24; ++i) patch_scores.push_back(static_cast<float>(i) / 8);
    for (int i = 0; i < 8 * 12; ++i) map.push_back(static_cast<float>(i) / 64);
    for (int i = 0; i < 10 * 40; ++i) pixels.push_back(static_cast<uint8_t>(i));
    parity = write_parity(parity_record(), sample_config());
  }

  // Two views of the same pixels: RGB with padded rows, and gray upside down.
  Parity parity_record() const {
    Parity record;
    record.relative_tolerance = 1e-4f;
    record.map_step = 4;
    record.images.push_back(
        {{pixels.data(), 10, 12, 40, PixelFormat::kRgb8}, 2.875f, 1, patch_scores.data(), map.data()});
    record.images.push_back(
        {{pixels.data() + 9 * 40, 10, 33, -40, PixelFormat::kGray8}, 2.5f, 2, patch_scores.data(), map.data()});
    return record;
  }

  PackageWriter writer() const {
    PackageWriter out;
    out.add("config", config.data(), config.size(), DataType::kBytes, {}, true);
    out.add("manifest.json", manifest.data(), manifest.size(), DataType::kBytes, {}, true);
    out.add("graph.onnx", graph.data(), graph.size(), DataType::kBytes, {}, true);
    out.add("memory_bank", bank.data(), bank.size() * sizeof(float), DataType::kFloat32, {64, 16}, true);
    out.add("calibration", calibration.data(), calibration.size(), DataType::kBytes, {}, true);
    out.add("parity", parity.data(), parity.size(), DataType::kBytes, {}, true);
    out.add("bank_source", source.data(), source.size() * sizeof(uint32_t), DataType::kUint32, {64, 2}, false);
    out.add("note", manifest.data(), manifest.size(), DataType::kBytes, {}, false);
    return out;
  }
};

inline const Sample& sample() {
  static const Sample value;
  return value;
}

inline const Bytes& sample_bytes() {
  static const Bytes value = sample().writer().bytes();
  return value;
}

// A package taken apart, changed at will, with all hashes made right again.
struct Forgery {
  Bytes bytes = sample_bytes();

  FileHeader* header() { return reinterpret_cast<FileHeader*>(bytes.data()); }
  TableEntry* entry(size_t i) { return reinterpret_cast<TableEntry*>(bytes.data() + 64) + i; }
  TableEntry* named(const char* name) {
    for (size_t i = 0; i < header()->member_count; ++i) {
      if (std::strcmp(entry(i)->name, name) == 0) return entry(i);
    }
    return nullptr;
  }
  void rename(size_t i, const std::string& name) {
    std::memset(entry(i)->name, 0, sizeof entry(i)->name);
    std::memcpy(entry(i)->name, name.data(), name.size());
  }
  template <typename Record>
  Record* member(const char* name) {
    return reinterpret_cast<Record*>(bytes.data() + named(name)->offset);
  }
  size_t id_offset() { return 64 + header()->member_count * (sizeof(TableEntry) + sizeof(Digest)); }

  // Hashes of all members within the file, then the id.
  const Bytes& sealed() {
    if (bytes.size() < 64 || id_offset() + 32 > bytes.size()) return bytes;
    for (size_t i = 0; i < header()->member_count; ++i) {
      const TableEntry& each = *entry(i);
      if (each.offset > bytes.size() || each.size_bytes > bytes.size() - each.offset) continue;
      const Digest digest = sha256(bytes.data() + each.offset, static_cast<size_t>(each.size_bytes));
      std::memcpy(bytes.data() + 64 + header()->member_count * sizeof(TableEntry) + 32 * i, digest.data(), 32);
    }
    return signed_only();
  }
  const Bytes& signed_only() {
    const Digest id = sha256(bytes.data(), id_offset());
    std::memcpy(bytes.data() + id_offset(), id.data(), 32);
    return bytes;
  }
};

}  // namespace samples
