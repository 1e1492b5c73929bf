#include "scoring/projection.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace onceover {
namespace {

constexpr size_t kOversample = 16;  // directions carried beside the wanted ones: they absorb what has not converged
constexpr size_t kIterations = 8;
constexpr size_t kSampleChunk = 128;  // rows whose outer products are added at once
constexpr size_t kStrip = 64;         // rows of the scatter matrix that begin at the same column
constexpr size_t kSkew = 16;          // added to strides: powers of two would fall on the same cache lines

size_t round_up_16(size_t n) { return (n + 15) / 16 * 16; }

double dot(const double* a, const double* b, size_t n) {
  double sums[4] = {};
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t j = 0; j < 4; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Gram–Schmidt, twice, over rows (count, dims). A row that vanishes (fewer directions than asked for) becomes zero.
void orthonormalize(double* rows, size_t count, size_t dims, size_t stride) {
  for (size_t i = 0; i < count; ++i) {
    double* row = rows + i * stride;
    const double before = std::sqrt(dot(row, row, dims));
    for (int pass = 0; pass < 2; ++pass) {
      for (size_t j = 0; j < i; ++j) {
        const double* other = rows + j * stride;
        const double share = dot(row, other, dims);
        for (size_t k = 0; k < dims; ++k) row[k] -= share * other[k];
      }
    }
    const double norm = std::sqrt(dot(row, row, dims));
    const double inverse = norm > 1e-9 * before && norm > 0 ? 1 / norm : 0;
    for (size_t k = 0; k < dims; ++k) row[k] *= inverse;
  }
}

void transpose(const double* from, size_t rows, size_t columns, size_t from_stride, double* to, size_t to_stride) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

// Σ (x − mean)(x − mean)ᵀ over the sample → (dims, stride).
Buffer<double> scatter_matrix(MatrixView<const float> rows, const uint32_t* which, size_t which_count,
                              const float* mean, size_t stride, const KernelTable& table, Memory& memory) {
  const size_t dims = rows.columns, columns = round_up_16(dims);
  Buffer<double> scatter(memory, dims * stride, "scatter matrix of the memory bank");
  Buffer<double> chunk(memory, kSampleChunk * stride, "PCA rows");
  Buffer<double> chunk_transposed(memory, dims * (kSampleChunk + kSkew), "PCA rows");
  const size_t sample = std::min(which_count, std::max<size_t>(4096, 2 * dims));
  for (size_t begin = 0; begin < sample; begin += kSampleChunk) {
    const size_t count = std::min(kSampleChunk, sample - begin);
    for (size_t i = 0; i < count; ++i) {
      const float* row = rows.row(which[(begin + i) * which_count / sample]);
      for (size_t k = 0; k < dims; ++k) chunk[i * stride + k] = double{row[k]} - double{mean[k]};
    }
    transpose(chunk.data(), count, dims, stride, chunk_transposed.data(), kSampleChunk + kSkew);
    for (size_t i = 0; i < dims; i += kStrip) {  // from the diagonal on: the rest is the same
      table.multiply_f64(chunk_transposed.data() + i * (kSampleChunk + kSkew), kSampleChunk + kSkew, chunk.data() + i,
                         stride, scatter.data() + i * stride + i, stride, std::min(kStrip, dims - i), count,
                         columns - i);
    }
  }
  for (size_t i = kStrip; i < dims; ++i) {
    for (size_t j = 0; j < i / kStrip * kStrip; ++j) scatter[i * stride + j] = scatter[j * stride + i];
  }
  return scatter;
}

// Cyclic Jacobi: eigenvectors of a symmetric (n, n), as rows of `vectors`, by descending eigenvalue.
void eigenvectors(Buffer<double>& matrix, Buffer<double>& vectors, size_t n) {
  double* a = matrix.data();
  double* v = vectors.data();
  for (size_t i = 0; i < n; ++i) v[i * n + i] = 1;
  double scale = 0;
  for (size_t i = 0; i < n; ++i) scale = std::max(scale, std::fabs(a[i * n + i]));
  for (int sweep = 0; sweep < 12; ++sweep) {
    double off = 0;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        off = std::max(off, std::fabs(apq));
        if (std::fabs(apq) <= 1e-12 * scale) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (size_t k = 0; k < n; ++k) {
          const double akp = a[k * n + p], akq = a[k * n + q];
          a[k * n + p] = c * akp - s * akq;
          a[k * n + q] = s * akp + c * akq;
        }
        for (size_t k = 0; k < n; ++k) {
          const double apk = a[p * n + k], aqk = a[q * n + k];
          a[p * n + k] = c * apk - s * aqk;
          a[q * n + k] = s * apk + c * aqk;
          const double vp = v[p * n + k], vq = v[q * n + k];
          v[p * n + k] = c * vp - s * vq;
          v[q * n + k] = s * vp + c * vq;
        }
      }
    }
    if (off <= 1e-10 * scale) break;
  }
  for (size_t i = 0; i < n; ++i) {  // selection sort: n is small
    size_t best = i;
    for (size_t j = i + 1; j < n; ++j) {
      if (a[j * n + j] > a[best * n + best]) best = j;
    }
    if (best == i) continue;
    std::swap(a[i * n + i], a[best * n + best]);
    for (size_t k = 0; k < n; ++k) std::swap(v[i * n + k], v[best * n + k]);
  }
}

void fill_normal(double* out, size_t count, Random& random) {
  for (size_t i = 0; i < count; ++i) out[i] = random.normal();
}

// out (count, padded) = random rotation · directions.
void rotate(const double* directions, size_t count, size_t padded, Random& random, double* out,
            const KernelTable& table, Memory& memory) {
  if (count == 0) return;
  Buffer<double> rotation(memory, count * count, "rotation");
  fill_normal(rotation.data(), count * count, random);
  orthonormalize(rotation.data(), count, count, count);
  std::fill_n(out, count * padded, 0.0);
  table.multiply_f64(rotation.data(), count, directions, padded, out, padded, count, count, padded);
}

}  // namespace

Buffer<double> principal_directions(MatrixView<const float> rows, const uint32_t* which, size_t which_count,
                                    const float* mean, size_t count, size_t padded, const KernelTable& table,
                                    Memory& memory) {
  const size_t dims = rows.columns, stride = round_up_16(dims) + kSkew;
  const size_t carried = std::min(round_up_16(dims), round_up_16(count + kOversample));
  const Buffer<double> scatter = scatter_matrix(rows, which, which_count, mean, stride, table, memory);
  Buffer<double> basis(memory, carried * stride, "PCA basis");  // rows are directions
  Buffer<double> columns(memory, dims * (carried + kSkew), "PCA basis");
  Buffer<double> product(memory, dims * (carried + kSkew), "PCA basis");
  Random random(0x0bce07e5);  // only where the iteration starts
  const size_t real = std::min(carried, dims);
  for (size_t i = 0; i < real; ++i) fill_normal(basis.data() + i * stride, dims, random);
  orthonormalize(basis.data(), real, dims, stride);
  const auto apply = [&] {  // product = scatter · basisᵀ
    transpose(basis.data(), carried, dims, stride, columns.data(), carried + kSkew);
    std::fill(product.begin(), product.end(), 0.0);
    table.multiply_f64(scatter.data(), stride, columns.data(), carried + kSkew, product.data(), carried + kSkew, dims,
                       dims, carried);
  };
  for (size_t iteration = 0; iteration < kIterations; ++iteration) {
    apply();
    transpose(product.data(), dims, carried, carried + kSkew, basis.data(), stride);
    orthonormalize(basis.data(), real, dims, stride);
  }
  apply();
  Buffer<double> small(memory, carried * carried, "PCA basis"), turned(memory, carried * carried, "PCA basis");
  table.multiply_f64(basis.data(), stride, product.data(), carried + kSkew, small.data(), carried, carried, dims,
                     carried);
  for (size_t i = 0; i < carried; ++i) {
    for (size_t j = 0; j < i; ++j) small[i * carried + j] = small[j * carried + i];
  }
  eigenvectors(small, turned, carried);
  Buffer<double> directions(memory, count * padded, "principal directions");
  for (size_t i = 0; i < std::min(count, carried); ++i) {
    for (size_t j = 0; j < real; ++j) {
      const double share = turned[i * carried + j];
      for (size_t k = 0; k < dims; ++k) directions[i * padded + k] += share * basis[j * stride + k];
    }
  }
  return directions;
}

double eigenvalue_bound(const double* matrix, size_t n, const KernelTable& table, Memory& memory) {
  constexpr int kSquarings = 12;
  Buffer<double> power(memory, n * n, "Gram matrix"), square(memory, n * n, "Gram matrix");
  std::copy_n(matrix, n * n, power.data());
  // λ(A) ≤ |A|_F, and λ(A)² = λ(A²): the Frobenius norm of A^(2^12), taken to the power 2^−12, is at most
  // n^(2^−13) times λ.
  double logarithm = 0, weight = 1;
  for (int i = 0;; ++i) {
    const double norm = std::sqrt(dot(power.data(), power.data(), n * n));
    if (!(norm > 0)) return 0;
    logarithm += weight * std::log(norm);
    if (i == kSquarings) break;
    for (double& value : power) value /= norm;
    std::fill(square.begin(), square.end(), 0.0);
    table.multiply_f64(power.data(), n, power.data(), n, square.data(), n, n, n, n);
    std::swap(power, square);
    weight /= 2;
  }
  return std::exp(logarithm) * (1 + 1e-9);  // rounding: n · 2^-53 per squaring, halved in effect each time
}

Projection make_projection(const Buffer<double>& directions, size_t screened, size_t rank1, size_t rank2, size_t padded,
                           uint64_t seed, const KernelTable& table, Memory& memory) {
  Buffer<double> rotated(memory, rank2 * padded, "projection");
  Random random(seed);
  const size_t head = rank1 - 1, first = rank1 - screened;
  rotate(directions.data(), screened - 1, padded, random, rotated.data() + first * padded, table, memory);
  rotate(directions.data() + (screened - 1) * padded, first, padded, random, rotated.data(), table, memory);
  rotate(directions.data() + head * padded, rank2 - rank1, padded, random, rotated.data() + rank1 * padded, table,
         memory);
  double largest = 0;
  for (const double& value : rotated) largest = std::max(largest, std::fabs(value));
  Projection projection{Buffer<int8_t>(memory, rank2 * padded, "projection"), 1};
  for (size_t i = 0; i < rank2 * padded; ++i) {
    projection.rows[i] = static_cast<int8_t>(largest > 0 ? std::lrint(rotated[i] * (127 / largest)) : 0);
    rotated[i] = projection.rows[i];
  }
  Buffer<double> gram(memory, rank2 * rank2, "Gram matrix"), columns(memory, padded * rank2, "projection");
  transpose(rotated.data(), rank2, padded, padded, columns.data(), rank2);
  table.multiply_f64(rotated.data(), padded, columns.data(), rank2, gram.data(), rank2, rank2, padded, rank2);
  const double bound = eigenvalue_bound(gram.data(), rank2, table, memory);
  projection.scale = bound > 0 ? 1 / std::sqrt(bound) : 1;
  return projection;
}

}  // namespace onceover
