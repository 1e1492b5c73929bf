// A whole valid package whose network is host_network.h: memory bank, index, calibration and parity record, made by the
// session itself. No engine and no Python, so it can be made on any machine that runs the tests.
#pragma once

#include <cstring>
#include <vector>

#include "host_network.h"
#include "kernels/dispatch.h"
#include "package/config.h"
#include "package/writer.h"
#include "scoring/build.h"
#include "session/bank_members.h"
#include "session/session.h"

namespace host_package {

using namespace onceover;

struct Kind {
  bool calibrated = true;
  bool indexed = true;
  Tiling tiling = {};
  std::vector<uint8_t> roi = {};       // (8, 8); empty: the whole image
  std::vector<float> adaptation = {};  // (HOST_DIM, HOST_DIM); empty: none
  std::vector<float> weights = {};     // by position, (cell_count); empty: none
  uint32_t fitted_images = 40;
};

inline SessionOptions session_options() {
  SessionOptions options;
  options.engine.name = "host";
  options.engine.host.run = host_network;
  return options;
}

inline Config config(Tiling tiling = {}) {
  Config config;
  config.preprocessing = {HOST_HEIGHT, HOST_WIDTH, {0.5f, 0.4f, 0.3f}, {0.25f, 0.5f, 0.2f}};
  config.grid_height = HOST_ROWS;
  config.grid_width = HOST_COLUMNS;
  config.embedding_dim = HOST_DIM;
  config.blur_sigma = 2;
  config.tiling = tiling;
  return config;
}

struct Image {
  std::vector<uint8_t> pixels;
  ImageView view;
};

inline Image image(uint32_t seed, bool defect = false, size_t height = 40, size_t width = 56, size_t channels = 3) {
  Image image{std::vector<uint8_t>(height * width * channels), {}};
  host_image(seed, defect ? 1 : 0, height, width, channels, image.pixels.data());
  image.view = {image.pixels.data(), height, width, static_cast<ptrdiff_t>(width * channels),
                channels == 1 ? PixelFormat::kGray8 : PixelFormat::kRgb8};
  return image;
}

// The members, and the file that they make so far: a session of it gives what the next member needs.
class Builder {
 public:
  explicit Builder(Kind kind) : kind_(kind), config_(write_config(config(kind.tiling))) {
    Memory memory;
    Embedder embedder(config(kind.tiling), {graph_.data(), graph_.size()}, session_options().engine, memory);
    for (uint32_t seed = 0; seed < kind.fitted_images; ++seed) {
      Timing timing;
      const size_t patches = config(kind.tiling).feature_count();
      MatrixView<const float> rows(embedder.embed(image(seed).view, timing), patches, HOST_DIM);
      std::vector<float> adapted(patches * HOST_DIM);
      if (!kind.adaptation.empty()) {
        ThreadPool alone(1);
        Adaptation({kind.adaptation.data(), HOST_DIM, HOST_DIM}, memory).apply(alone, rows, adapted.data(), kernels());
        rows.data = adapted.data();
      }
      bank_.insert(bank_.end(), rows.data, rows.data + patches * HOST_DIM);
    }
    const Buffer<uint8_t> index = build_index({bank_.data(), bank_.size() / HOST_DIM, HOST_DIM}, {}, kernels(), memory);
    index_.assign(index.data(), index.data() + index.size());
    calibration_ = write_calibration(false, 0, 0, 0, {}, {}, 0);
    Parity none;
    none.relative_tolerance = 1e-4f;
    parity_ = write_parity(none, config(kind.tiling));
    if (kind.calibrated) calibrate();
    record_parity();
  }

  std::vector<uint8_t> bytes() const {
    PackageWriter writer;
    const auto add = [&writer](const char* name, const std::vector<uint8_t>& data) {
      writer.add(name, data.data(), data.size(), DataType::kBytes, {}, true);
    };
    add("config", config_);
    writer.add("manifest.json", manifest_, sizeof manifest_ - 1, DataType::kBytes, {}, false);
    add("graph.onnx", graph_);
    writer.add("memory_bank", bank_.data(), bank_.size() * sizeof(float), DataType::kFloat32,
               {bank_.size() / HOST_DIM, HOST_DIM}, true);
    if (kind_.indexed) writer.add("bank_index", index_.data(), index_.size(), DataType::kUint8, {}, false);
    if (!kind_.roi.empty()) {
      writer.add("roi", kind_.roi.data(), kind_.roi.size(), DataType::kUint8, {8, 8}, true);
    }
    if (!kind_.adaptation.empty()) {
      writer.add("adaptation", kind_.adaptation.data(), kind_.adaptation.size() * sizeof(float), DataType::kFloat32,
                 {kind_.adaptation.size() / HOST_DIM, HOST_DIM}, true);
    }
    if (!kind_.weights.empty()) {
      const TileGrid cells = config(kind_.tiling).tiles();
      writer.add("position_weights", kind_.weights.data(), kind_.weights.size() * sizeof(float), DataType::kFloat32,
                 {cells.height(), cells.width()}, true);
    }
    add("calibration", calibration_);
    add("parity", parity_);
    return writer.bytes();
  }

 private:
  void calibrate() {
    const std::vector<uint8_t> file = bytes();
    Session session(Package::view(file.data(), file.size(), "host"), session_options());
    std::vector<float> scores, maxima;
    for (uint32_t seed = 100; seed < 119; ++seed) {
      const Result& result = session.run(image(seed).view);
      scores.push_back(result.score);
      maxima.push_back(result.map_maximum);
    }
    // n = 19, a rate of 0.05: the ⌈20 · 0.95⌉ = 19th smallest, which is the largest.
    const float threshold = *std::max_element(scores.begin(), scores.end());
    const float map_threshold = *std::max_element(maxima.begin(), maxima.end());
    calibration_ = write_calibration(true, 0.05, threshold, map_threshold, scores, maxima, 19);
  }

  void record_parity() {
    const std::vector<uint8_t> file = bytes();
    Session session(Package::view(file.data(), file.size(), "host"), session_options());
    const Image images[] = {image(200), image(201, false, 37, 91, 1), image(202, true)};
    std::vector<std::vector<float>> patch_scores, maps;
    Parity parity;
    parity.relative_tolerance = 1e-4f;
    parity.map_step = 1;
    for (const Image& each : images) {
      const Result& result = session.run(each.view);
      const Config& own = session.config();
      patch_scores.emplace_back(session.patch_scores(), session.patch_scores() + own.cell_count());
      maps.emplace_back(own.map_height() * own.map_width());
      session.draw_map({maps.back().data(), own.map_height(), own.map_width()});
      parity.images.push_back({each.view, result.score, static_cast<uint32_t>(result.decision), nullptr, nullptr});
    }
    for (size_t i = 0; i < parity.images.size(); ++i) {
      parity.images[i].patch_scores = patch_scores[i].data();
      parity.images[i].map = maps[i].data();
    }
    parity_ = write_parity(parity, config(kind_.tiling));
  }

  static constexpr char manifest_[] = "{\"name\": \"host\"}";
  Kind kind_;
  std::vector<uint8_t> config_, graph_ = std::vector<uint8_t>(64, 'n'), index_, calibration_, parity_;
  std::vector<float> bank_;
};

// (cell_count): from a half to 1.4, other ones beside each other.
inline std::vector<float> some_weights(Tiling tiling = {}) {
  std::vector<float> weights(config(tiling).cell_count());
  for (size_t cell = 0; cell < weights.size(); ++cell) weights[cell] = 0.5f + 0.1f * static_cast<float>(cell * 7 % 10);
  return weights;
}

inline std::vector<uint8_t> bytes(Kind kind = {}) { return Builder(kind).bytes(); }

inline uint16_t minor_version(const std::vector<uint8_t>& file) {
  FileHeader header;
  std::memcpy(&header, file.data(), sizeof header);
  return header.minor;
}

}  // namespace host_package
