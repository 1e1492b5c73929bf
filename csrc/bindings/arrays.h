// numpy arrays ↔ views of the core, with typed errors that name dtype and shape. The views borrow: the array must
// outlive them. Only bindings/*.cpp include this.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/matrix_view.h"
#include "image/image_view.h"

namespace onceover {

// "uint8 (300, 350, 3)": how messages name an array.
inline std::string describe_array(const pybind11::array& array) {
  std::string text = pybind11::str(array.dtype()).cast<std::string>() + " (";
  for (pybind11::ssize_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + (array.ndim() == 1 ? ",)" : ")");
}

template <typename T>
bool has_dtype(const pybind11::array& array) {
  return array.dtype().equal(pybind11::dtype::of<T>());
}

// color "rgb" or "bgr", channels 1, 3 or 4, bytes per sample 1 or 2; anything else throws Error(kUsage | kInput).
inline PixelFormat pixel_format(const std::string& color, size_t channels, size_t sample_bytes) {
  if (color != "rgb" && color != "bgr") {
    fail(Status::kUsage, "color is '%s'; expected 'rgb' or 'bgr' (the order of an image's channels)", color.c_str());
  }
  const bool wide = sample_bytes == 2;
  const bool rgb = color == "rgb";
  if (channels == 1) return wide ? PixelFormat::kGray16 : PixelFormat::kGray8;
  if (channels == 3) {
    if (wide) return rgb ? PixelFormat::kRgb16 : PixelFormat::kBgr16;
    return rgb ? PixelFormat::kRgb8 : PixelFormat::kBgr8;
  }
  if (wide) return rgb ? PixelFormat::kRgba16 : PixelFormat::kBgra16;
  return rgb ? PixelFormat::kRgba8 : PixelFormat::kBgra8;
}

// uint8 or uint16, (H, W), (H, W, 3) or (H, W, 4), rows strided at will, aligned or not → a view. Throws Error(kInput).
inline ImageView view_image(const pybind11::array& image, const std::string& color) {
  static constexpr char kAccepted[] = "expected uint8 or uint16, (H, W) gray, (H, W, 3) or (H, W, 4)";
  const bool is_u8 = has_dtype<uint8_t>(image);
  if (!is_u8 && !has_dtype<uint16_t>(image)) {
    fail(Status::kInput, "image is %s; %s. Convert it first, e.g. (255 * image).astype('uint8')",
         describe_array(image).c_str(), kAccepted);
  }
  const size_t sample_bytes = is_u8 ? 1 : 2;
  const bool is_gray = image.ndim() == 2;
  if (!is_gray && !(image.ndim() == 3 && (image.shape(2) == 3 || image.shape(2) == 4))) {
    fail(Status::kInput, "image is %s; %s, with the channels last", describe_array(image).c_str(), kAccepted);
  }
  const size_t channels = is_gray ? 1 : static_cast<size_t>(image.shape(2));
  const auto pixel_size = static_cast<pybind11::ssize_t>(channels * sample_bytes);
  const bool pixels_touch = image.shape(1) <= 1 || image.strides(1) == pixel_size;
  const bool samples_touch = is_gray || image.strides(2) == static_cast<pybind11::ssize_t>(sample_bytes);
  if (!pixels_touch || !samples_touch) {
    fail(Status::kInput,
         "image %s: the pixels of a row are not contiguous (a flipped, transposed or sub-sampled view?); pass "
         "np.ascontiguousarray(image)",
         describe_array(image).c_str());
  }
  ImageView view;
  view.data = static_cast<const uint8_t*>(image.data());
  view.height = static_cast<size_t>(image.shape(0));
  view.width = static_cast<size_t>(image.shape(1));
  view.stride_bytes = view.height > 1 ? image.strides(0) : pixel_size * image.shape(1);
  view.format = pixel_format(color, channels, sample_bytes);
  return view;
}

// An aligned C-contiguous array of T with `rank` dimensions → its first element. Throws Error(kInput) naming `what`.
template <typename T>
const T* view_elements(const pybind11::array& array, pybind11::ssize_t rank, const char* what) {
  const std::string dtype = pybind11::str(pybind11::dtype::of<T>()).cast<std::string>();
  if (!has_dtype<T>(array) || array.ndim() != rank) {
    fail(Status::kInput, "%s is %s; expected %s with %zd dimension%s", what, describe_array(array).c_str(),
         dtype.c_str(), rank, rank == 1 ? "" : "s");
  }
  if (!(array.flags() & pybind11::array::c_style)) {
    fail(Status::kInput, "%s %s is not C-contiguous; pass np.ascontiguousarray(%s)", what,
         describe_array(array).c_str(), what);
  }
  if (!(array.flags() & pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
    fail(Status::kInput, "%s %s is not aligned to its elements (a view into a byte buffer?); pass %s.copy()", what,
         describe_array(array).c_str(), what);
  }
  return static_cast<const T*>(array.data());
}

// (rows, columns) T, C-contiguous → a view. Throws Error(kInput) naming `what`.
template <typename T>
MatrixView<const T> view_matrix(const pybind11::array& array, const char* what) {
  const T* data = view_elements<T>(array, 2, what);
  return {data, static_cast<size_t>(array.shape(0)), static_cast<size_t>(array.shape(1))};
}

// Memory that a caller wants a result in → its view. `read`: bytes that are read meanwhile; empty: none. Throws
// Error(kInput) for another dtype, shape or layout, and where writing would change what is read.
inline MatrixView<float> view_out(pybind11::array& out, size_t rows, size_t columns, const void* read,
                                  size_t read_bytes) {
  const int needed = pybind11::array::c_style | pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (!has_dtype<float>(out) || out.ndim() != 2 || static_cast<size_t>(out.shape(0)) != rows ||
      static_cast<size_t>(out.shape(1)) != columns || !out.writeable() || (out.flags() & needed) != needed) {
    fail(Status::kInput, "out is %s%s; expected a writable float32 (%zu, %zu), C-contiguous",
         describe_array(out).c_str(), out.writeable() ? "" : ", read-only", rows, columns);
  }
  auto* to = static_cast<float*>(out.mutable_data());
  const auto first = reinterpret_cast<uintptr_t>(to), source = reinterpret_cast<uintptr_t>(read);
  if (first < source + read_bytes && source < first + rows * columns * sizeof(float)) {
    fail(Status::kInput, "out shares memory with the array that is read; give another one");
  }
  return {to, rows, columns};
}

// A new uninitialized C-contiguous array of this shape.
template <typename T>
pybind11::array_t<T> new_array(std::initializer_list<size_t> shape) {
  return pybind11::array_t<T>(std::vector<pybind11::ssize_t>(shape.begin(), shape.end()));
}

// A fresh (rows, columns) array as a view to fill.
template <typename T>
MatrixView<T> mutable_view(pybind11::array_t<T>& array) {
  return {array.mutable_data(), static_cast<size_t>(array.shape(0)), static_cast<size_t>(array.shape(1))};
}

}  // namespace onceover
