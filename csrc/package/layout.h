// Byte layout of a package: the constants and fixed structs that reader and writer share. export/FORMAT.md is the
// same thing in words; change both, and the version, together. All integers and floats are little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/sha256.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packages are read in place, which takes a little-endian machine"
#endif

namespace onceover {

inline constexpr uint8_t kMagic[8] = {0x89, 'O', 'O', 'V', '\r', '\n', 0x1a, '\n'};  // text-mode transfer breaks it
inline constexpr uint16_t kFormatMajor = 1;
inline constexpr uint16_t kFormatMinor = 1;
inline constexpr size_t kMemberAlignment = 64;
inline constexpr size_t kMaxDimensions = 4;
inline constexpr size_t kMaxMembers = 512;      // 64 in format 1.0
inline constexpr size_t kMaxNameBytes = 47;     // [a-z0-9_.-], first a letter or digit, NUL-padded to 48
inline constexpr size_t kMaxEntryBytes = 4096;  // bounds the table and parity records of a newer minor version

inline constexpr uint32_t kMaxProducts = 32;
inline constexpr size_t kMaxProductNameBytes = 47;  // UTF-8, NUL-padded to 48
inline constexpr uint32_t kMaxGateRank = 64;

// The member `name` of a product: itself for the first one, "name.3" for number 3, counted from 0.
inline std::string member_name(std::string_view name, uint32_t product) {
  return product == 0 ? std::string(name) : std::string(name) + "." + std::to_string(product);
}

// Members that this version understands; any other one marked required is refused by name.
inline constexpr std::string_view kKnownMembers[] = {"config",     "manifest.json", "graph.onnx", "memory_bank",
                                                     "bank_index", "calibration",   "parity",     "roi",
                                                     "products",   "gate",          "adaptation", "position_weights"};

// Members that a minor version brought, as it did tiles. A package says the lowest version that has all of its members,
// so that one without the new ones stays, byte for byte, what it was.
struct MemberSince {
  std::string_view name;
  uint16_t minor;
};
inline constexpr MemberSince kSince[] = {
    {"thumbnails", 1},          {"roi", 1},        {"products", 1},        {"gate", 1},
    {"calibration_patches", 1}, {"adaptation", 1}, {"position_weights", 1}};
inline constexpr uint16_t kTiledSince = 1;

enum class DataType : uint32_t { kBytes = 0, kFloat32 = 1, kFloat64 = 2, kUint8 = 3, kInt8 = 4, kUint32 = 5 };

// Bytes of one element and its name in messages; 0 and null for a type this version does not know.
constexpr size_t data_type_bytes(DataType type) {
  switch (type) {
    case DataType::kBytes:
    case DataType::kUint8:
    case DataType::kInt8:
      return 1;
    case DataType::kFloat32:
    case DataType::kUint32:
      return 4;
    case DataType::kFloat64:
      return 8;
  }
  return 0;
}

constexpr const char* data_type_name(DataType type) {
  constexpr const char* kNames[] = {"bytes", "float32", "float64", "uint8", "int8", "uint32"};
  return data_type_bytes(type) == 0 ? nullptr : kNames[static_cast<uint32_t>(type)];
}

// Of a product beyond the first, too: "memory_bank.3".
constexpr bool is_known_member(std::string_view name) {
  const size_t dot = name.find_last_of('.');
  if (dot != std::string_view::npos && dot + 1 < name.size() && name.size() - dot <= 3 && name[dot + 1] != '0') {
    bool number = true;
    for (const char c : name.substr(dot + 1)) number = number && c >= '0' && c <= '9';
    if (number) name = name.substr(0, dot);
  }
  for (const std::string_view known : kKnownMembers) {
    if (name == known) return true;
  }
  return false;
}

// A name can become a file name anywhere: no separators, no hidden files, no options, no case to lose.
constexpr bool is_member_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (!alphanumeric && (i == 0 || (c != '_' && c != '.' && c != '-'))) return false;
  }
  return true;
}

// product(dimensions) · bytes per element; 0 when the type is unknown, the rank is not 1 … 4, a dimension is 0 or
// the product overflows. No member has 0 bytes, so 0 never agrees with anything.
constexpr uint64_t member_bytes(DataType type, const uint64_t* dimensions, size_t dimension_count) {
  if (dimension_count < 1 || dimension_count > kMaxDimensions) return 0;
  uint64_t bytes = data_type_bytes(type);
  for (size_t i = 0; i < dimension_count; ++i) {
    if (dimensions[i] == 0 || bytes > UINT64_MAX / dimensions[i]) return 0;
    bytes *= dimensions[i];
  }
  return bytes;
}

struct FileHeader {  // at byte 0
  uint8_t magic[8];
  uint16_t major;
  uint16_t minor;
  uint32_t header_bytes;  // 64
  uint64_t file_bytes;
  uint64_t table_offset;  // 64
  uint32_t member_count;
  uint32_t entry_bytes;  // 128
  uint8_t zero[24];
};
static_assert(sizeof(FileHeader) == 64);

// member_count entries of entry_bytes each at table_offset, then member_count SHA-256 digests, then the package id,
// then zeros up to a multiple of 64, where the first member may begin.
struct TableEntry {
  char name[48];
  uint32_t flags;  // bit 0: a reader that does not know this member must refuse the package
  uint32_t type;
  uint32_t dimension_count;
  uint32_t zero;
  uint64_t dimensions[4];
  uint64_t offset;
  uint64_t size_bytes;
  uint8_t zeros[16];
};
static_assert(sizeof(TableEntry) == 128);
inline constexpr uint32_t kRequiredFlag = 1;

// Member "config" (required): all the core needs to run; no JSON in firmware.
struct ConfigRecord {
  uint32_t record_bytes;  // 256; more only in a newer minor version, which may append; fields never move
  uint32_t scorer;        // 1 nearest neighbor in a memory bank
  uint32_t input_height, input_width;
  uint32_t color;   // 1 RGB
  uint32_t resize;  // 1 antialiased triangle filter, aspect not kept
  float mean[3], std[3];
  uint32_t grid_height, grid_width, embedding_dim;
  uint32_t neighbors;                      // 1
  uint32_t image_score;                    // 1 largest patch score
  float blur_sigma;                        // of the anomaly map, in pixels of the network input
  uint32_t graph_format;                   // 1 ONNX
  uint32_t tile_rows, tile_columns;        // both 0: one tile, the whole image; else 1 to 64, at least 2 tiles
  uint32_t overlap_rows, overlap_columns;  // patches that neighboring tiles share
  uint32_t zeros[41];
};
static_assert(sizeof(ConfigRecord) == 256);

// Member "calibration" (required): this record, then score_count float32 image scores ascending, then score_count
// float32 anomaly-map maxima ascending, one pair of values per independent held-out part.
struct CalibrationRecord {
  uint32_t record_bytes;    // 64
  uint32_t state;           // 0 uncalibrated, 1 split conformal, 2 cross-conformal (from 1.1)
  double false_alarm_rate;  // alpha; 0 when uncalibrated
  float threshold;          // image score above it is anomalous; +inf when uncalibrated
  float map_threshold;      // anomaly-map value above it belongs to a region; +inf when uncalibrated
  uint32_t score_count;     // n, independent parts
  uint32_t image_count;     // images those parts had
  double confidence;        // that the realised rate is ≤ alpha (from 1.1); 0: alpha holds on average over calibrations
  uint8_t zeros[24];
};
static_assert(sizeof(CalibrationRecord) == 64);
// The lowest minor version that has what a record says.
constexpr uint16_t version_of(const CalibrationRecord& record) {
  return record.state == 2 || record.confidence != 0 ? 1 : 0;
}

// Member "products" (required, where there are several): header, then `product_count` records. Members of the first
// product have the names above; those of number k the same with ".k" behind.
struct ProductsHeader {
  uint32_t record_bytes;  // of one ProductRecord: 64
  uint32_t product_count;
  uint8_t zeros[56];
};
static_assert(sizeof(ProductsHeader) == 64);
struct ProductRecord {
  char name[48];
  uint8_t zeros[16];
};
static_assert(sizeof(ProductRecord) == 64);

// Member "gate" (optional): this record, then mean f32[dims], weights f32[rank], axes f32[rank][dims]; products.h.
struct GateRecord {
  uint32_t record_bytes;  // 64
  uint32_t dims, rank, part_count;
  float threshold, isotropic;
  uint8_t zeros[40];
};
static_assert(sizeof(GateRecord) == 64);

// Member "calibration_patches" (optional): this record, then parts u32[n], scores f32[n][P], nearest u32[n][P], patches
// u32[n][T], embeddings f32[n][T][D]: what the held-out images are scored by again when the memory bank changes.
struct CalibrationPatchesRecord {
  uint32_t record_bytes;  // 64
  uint32_t image_count;   // n, as in the calibration
  uint32_t tracked;       // T, patches whose embeddings are kept: those with the highest scores
  uint32_t patch_count;   // P
  uint32_t dims;          // D
  uint32_t bounds;        // 1: scores of patches that are not tracked may be too high (a compacted package)
  uint8_t zeros[40];
};
static_assert(sizeof(CalibrationPatchesRecord) == 64);

// Member "parity" (required): header, then `image_count` records; every record's offsets count from the member start.
struct ParityHeader {
  uint32_t record_bytes;     // of one ParityRecord: 64
  uint32_t image_count;      // up to 1024; 0 in a package that has not been replayed yet
  float relative_tolerance;  // |score − expected| ≤ relative_tolerance · max(expected, largest expected patch score)
  uint32_t map_step;         // every map_step-th row and column of the anomaly map at input size is recorded
  uint8_t zeros[48];
};
static_assert(sizeof(ParityHeader) == 64);

struct ParityRecord {
  uint32_t height, width;
  uint32_t pixel_format;  // image_view.h, rows without padding
  float score;
  uint32_t verdict;  // session.h Decision
  uint32_t zero;
  uint64_t pixels_offset, pixels_bytes;
  uint64_t patch_scores_offset;  // height · width float32 of the grid of all tiles: grid_height · grid_width for one
  uint64_t map_offset;           // ceil(map height / map_step) · ceil(map width / map_step) float32
  uint8_t zeros[8];
};
static_assert(sizeof(ParityRecord) == 64);

}  // namespace onceover
