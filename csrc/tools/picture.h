// Files of pixels: PGM and PPM of 8 or 16 bits, or raw frames whose size the caller knows.
#pragma once

#include <string>
#include <vector>

#include "onceover.hpp"

struct Picture {
  std::vector<uint8_t> bytes;
  onceover_image image;  // points into bytes
};

// Both throw std::runtime_error with path and reason.
Picture read_netpbm(const std::string& path);
Picture read_raw(const std::string& path, onceover_pixel_format format, uint32_t height, uint32_t width);
