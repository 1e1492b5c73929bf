// A SegmentationState as bytes, and back. Little-endian, canonical: equal contents give equal bytes, whatever the order
// of updates and merges was (while no low bits were dropped). Layout, version 1, nothing between:
//
//   magic 8 bytes | u32 version, connectivity, dropped bits, groups | u64 page budget, images, pages, half codes, whole
//   codes | groups: u64 regions, channels, pixels, channel pixels; then both kinds as u64 key << 32 | area, ascending |
//   pages, ascending: u32 page, n; n < kDenseLows low parts u16, ascending; or, n = 2^32 − 1: u32 extras, 32768 counts
//   u8, extras (u32 low, u64 count), ascending | half codes, whole codes: u32 code, u64 count, ascending | SHA-256 of
//   all that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "metrics/segmentation_state.h"

namespace onceover {

// Settles the state.
std::vector<uint8_t> write_state(SegmentationState& state);

// Throws Error(kInput) for bytes that are damaged or are none, Error(kUnsupported) for another version.
SegmentationState read_state(const uint8_t* bytes, size_t size, const KernelTable& table);

}  // namespace onceover
