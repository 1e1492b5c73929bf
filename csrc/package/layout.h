// Byte layout of a package: the constants and fixed structs that reader and writer share. export/FORMAT.md is the
// same thing in words; change both, and the version, together. All integers and floats are little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace onceover {

using Digest = std::array<uint8_t, 32>;

inline constexpr uint8_t kMagic[8] = {0x89, 'O', 'O', 'V', '\r', '\n', 0x1a, '\n'};  // text-mode transfer breaks it
inline constexpr uint16_t kFormatMajor = 0;
inline constexpr uint16_t kFormatMinor = 1;
inline constexpr size_t kMemberAlignment = 64;
inline constexpr size_t kMaxDimensions = 4;
inline constexpr size_t kMaxMembers = 64;
inline constexpr size_t kMaxNameBytes = 47;  // [a-z0-9_.-], NUL-padded to 48

enum class DataType : uint32_t { kBytes = 0, kFloat32 = 1, kFloat64 = 2, kUint8 = 3, kInt8 = 4, kUint32 = 5 };

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

struct TableEntry {  // member_count of them at table_offset, then member_count SHA-256 digests, then the package id
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
  uint32_t record_bytes;  // 256; a newer minor version may append, within this size fields never move
  uint32_t scorer;        // 1 nearest neighbor in a memory bank
  uint32_t input_height, input_width;
  uint32_t color;   // 1 RGB
  uint32_t resize;  // 1 antialiased triangle filter, aspect not kept
  float mean[3], std[3];
  uint32_t grid_height, grid_width, embedding_dim;
  uint32_t neighbors;     // 1
  uint32_t image_score;   // 1 largest patch score
  float blur_sigma;       // of the anomaly map, in pixels of the network input
  uint32_t graph_format;  // 1 ONNX
  uint32_t zeros[45];
};
static_assert(sizeof(ConfigRecord) == 256);

// Member "calibration" (required): this record, then score_count float32 image scores ascending, then score_count
// float32 anomaly-map maxima ascending, one pair of values per independent held-out part.
struct CalibrationRecord {
  uint32_t record_bytes;  // 64
  uint32_t state;         // 0 uncalibrated, 1 split conformal
  double false_alarm_rate;  // alpha; 0 when uncalibrated
  float threshold;          // image score above it is anomalous; +inf when uncalibrated
  float map_threshold;      // anomaly-map value above it belongs to a region; +inf when uncalibrated
  uint32_t score_count;     // n, independent parts
  uint32_t image_count;     // images those parts had
  uint8_t zeros[24];
};
static_assert(sizeof(CalibrationRecord) == 64);

// Member "parity" (required): header, then `image_count` records; every record's offsets count from the member start.
struct ParityHeader {
  uint32_t record_bytes;  // of one ParityRecord: 64
  uint32_t image_count;
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
  uint64_t patch_scores_offset;  // grid_height · grid_width float32
  uint64_t map_offset;           // ceil(input_height / map_step) · ceil(input_width / map_step) float32
  uint8_t zeros[8];
};
static_assert(sizeof(ParityRecord) == 64);

}  // namespace onceover
