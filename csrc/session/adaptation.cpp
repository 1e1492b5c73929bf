#include "session/adaptation.h"

#include <algorithm>

#include "base/error.h"
#include "base/finite.h"

namespace onceover {
namespace {

struct Work {
  const float *features, *matrix;
  float* out;
  size_t rows, dims, parts;
  const KernelTable* kernels;
};

size_t padded(size_t dims) { return (dims + kQueryLanes - 1) / kQueryLanes * kQueryLanes; }

}  // namespace

Adaptation::Adaptation(MatrixView<const float> matrix, Memory& memory)
    : dims_(matrix.columns), matrix_(memory, dims_ * padded(dims_), "adaptation") {
  std::fill(matrix_.begin(), matrix_.end(), 0.0f);
  for (size_t row = 0; row < dims_; ++row) {
    std::copy_n(matrix.row(row), dims_, matrix_.data() + row * padded(dims_));
  }
}

void Adaptation::apply(ThreadPool& pool, MatrixView<const float> features, float* out,
                       const KernelTable& kernels) const {
  Work work{features.data, matrix_.data(), out, features.rows, dims_, pool.threads(), &kernels};
  pool.run(
      [](void* context, size_t part) noexcept {
        const Work& all = *static_cast<const Work*>(context);
        const size_t first = all.rows * part / all.parts, last = all.rows * (part + 1) / all.parts;
        all.kernels->multiply_f32(all.features + first * all.dims, all.matrix, all.out + first * all.dims, last - first,
                                  all.dims, all.dims);
      },
      &work);
}

Adaptation read_adaptation(const Package& package, const Config& config, uint32_t product, Memory& memory) {
  const std::string name = member_name("adaptation", product);
  const MemberView* member = package.find(name);
  if (member == nullptr) return {};
  const float* values = member->as<float>(2);
  const size_t dims = config.embedding_dim;
  if (member->dimensions[0] != dims || member->dimensions[1] != dims) {
    fail(Status::kPackage, "%s: member '%s' is %llu x %llu, the patch embedding has %zu values; fit again",
         package.label().c_str(), name.c_str(), static_cast<unsigned long long>(member->dimensions[0]),
         static_cast<unsigned long long>(member->dimensions[1]), dims);
  }
  if (!all_finite(values, dims * dims)) {
    fail(Status::kPackage, "%s: member '%s' holds a NaN or infinity; fit again", package.label().c_str(), name.c_str());
  }
  return Adaptation({values, dims, dims}, memory);
}

}  // namespace onceover
