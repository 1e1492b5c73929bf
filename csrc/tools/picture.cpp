#include "tools/picture.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace {

constexpr uint32_t kMostPixels = 1u << 27;  // what a session accepts

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error(path + ": " + why);
}

std::vector<uint8_t> read_file(const std::string& path) {
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) refuse(path, std::strerror(errno));
  std::vector<uint8_t> bytes;
  for (uint8_t block[65536]; const size_t got = std::fread(block, 1, sizeof block, file.get());) {
    bytes.insert(bytes.end(), block, block + got);
  }
  if (std::ferror(file.get()) != 0) refuse(path, std::strerror(errno));
  return bytes;
}

// The header of a netpbm file: words and numbers apart by white space; from # to the end of a line is a comment.
class Header {
 public:
  Header(const std::string& path, const std::vector<uint8_t>& bytes) : path_(path), bytes_(bytes) {}

  uint32_t number(const char* what, uint32_t most) {
    skip_space();
    uint64_t value = 0;
    const size_t start = at_;
    for (; at_ < bytes_.size() && bytes_[at_] >= '0' && bytes_[at_] <= '9' && value <= most; ++at_) {
      value = value * 10 + (bytes_[at_] - '0');
    }
    if (at_ == start || value < 1 || value > most) {
      refuse(path_, std::string("its ") + what + " is not a number of 1 to " + std::to_string(most));
    }
    return static_cast<uint32_t>(value);
  }
  size_t pixels() const { return at_ + 1; }  // one white space ends the header

 private:
  void skip_space() {
    for (; at_ < bytes_.size(); ++at_) {
      if (bytes_[at_] == '#') {
        while (at_ < bytes_.size() && bytes_[at_] != '\n') ++at_;
      } else if (std::strchr(" \t\r\n", bytes_[at_]) == nullptr || bytes_[at_] == '\0') {
        return;
      }
    }
  }
  const std::string& path_;
  const std::vector<uint8_t>& bytes_;
  size_t at_ = 2;
};

void check_size(const std::string& path, uint64_t needed, uint64_t got) {
  if (got == needed) return;
  refuse(path, "has " + std::to_string(got) + " bytes of pixels, its size and format say " + std::to_string(needed));
}

}  // namespace

Picture read_netpbm(const std::string& path) {
  Picture picture{read_file(path), {}};
  std::vector<uint8_t>& bytes = picture.bytes;
  if (bytes.size() < 2 || bytes[0] != 'P' || (bytes[1] != '5' && bytes[1] != '6')) {
    refuse(path, "not a binary PGM or PPM; convert it (magick picture.png picture.ppm), or see --raw");
  }
  Header header(path, bytes);
  const uint32_t width = header.number("width", kMostPixels), height = header.number("height", kMostPixels);
  const uint32_t largest = header.number("largest value", 65535);
  if (largest != 255 && largest != 65535)
    refuse(path, "values to " + std::to_string(largest) + ", expected 255 or 65535");
  const bool gray = bytes[1] == '5', wide = largest == 65535;
  const uint64_t row = uint64_t{width} * (gray ? 1 : 3) * (wide ? 2 : 1);
  const size_t start = header.pixels();
  check_size(path, row * height, start > bytes.size() ? 0 : bytes.size() - start);
  if (wide) {  // most significant byte first in the file
    for (size_t i = start; i + 1 < bytes.size(); i += 2) {
      const auto sample = static_cast<uint16_t>(bytes[i] << 8 | bytes[i + 1]);
      std::memcpy(&bytes[i], &sample, sizeof sample);
    }
  }
  const onceover_pixel_format format =
      wide ? (gray ? ONCEOVER_GRAY16 : ONCEOVER_RGB16) : (gray ? ONCEOVER_GRAY8 : ONCEOVER_RGB8);
  picture.image = onceover::image(format, bytes.data() + start, height, width);
  return picture;
}

Picture read_raw(const std::string& path, onceover_pixel_format format, uint32_t height, uint32_t width) {
  Picture picture{read_file(path), {}};
  picture.image = onceover::image(format, picture.bytes.data(), height, width);
  const uint64_t luma = static_cast<uint64_t>(picture.image.stride_bytes) * height;
  check_size(path, format == ONCEOVER_NV12 ? luma + luma / 2 : luma, picture.bytes.size());
  if (format == ONCEOVER_NV12) {
    picture.image.chroma = picture.bytes.data() + luma;
    picture.image.chroma_stride_bytes = picture.image.stride_bytes;
  }
  return picture;
}
