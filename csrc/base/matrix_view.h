// A row-major matrix somebody else owns; rows may be padded.
#pragma once

#include <cstddef>

namespace onceover {

template <typename T>
struct MatrixView {
  T* data = nullptr;
  size_t rows = 0;
  size_t columns = 0;
  size_t stride = 0;  // elements from one row to the next

  MatrixView() = default;
  MatrixView(T* data_, size_t rows_, size_t columns_) : MatrixView(data_, rows_, columns_, columns_) {}
  MatrixView(T* data_, size_t rows_, size_t columns_, size_t stride_)
      : data(data_), rows(rows_), columns(columns_), stride(stride_) {}
  T* row(size_t i) const { return data + i * stride; }
};

}  // namespace onceover
