// A product's own linear map behind the network (training/adapting.py): distances as its good parts suggest, on a graph
// that other products share and other precisions leave alone.
#pragma once

#include "base/matrix_view.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "kernels/kernel_table.h"
#include "package/config.h"

namespace onceover {

class Adaptation {
 public:
  Adaptation() = default;  // features stay as they are
  // matrix (D, D), finite; D ≥ 1.
  Adaptation(MatrixView<const float> matrix, Memory& memory);

  bool none() const { return matrix_.size() == 0; }
  // out (n, D) = features (n, D) · matrix, with the same bits on every instruction set and number of threads. Allocates
  // nothing.
  void apply(ThreadPool& pool, MatrixView<const float> features, float* out, const KernelTable& kernels) const;

 private:
  size_t dims_ = 0;
  Buffer<float> matrix_;  // rows padded with zeros to a multiple of 16
};

// Member "adaptation"; none where there is no such member. Throws Error(kPackage) for another shape than D × D, or a
// value that is not finite.
Adaptation read_adaptation(const Package& package, const Config& config, uint32_t product, Memory& memory);

}  // namespace onceover
