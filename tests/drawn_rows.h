// Rows and queries that tests of searching draw: Gaussian, like features, in clusters.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace onceover {

using Rows = std::vector<float>;

inline Rows gaussian(size_t rows, size_t dims, Random& random) {
  Rows out(rows * dims);
  for (float& value : out) value = static_cast<float>(random.normal());
  return out;
}

// Like a network's features: few directions carry most of the variance, some values are cut at 0.
inline Rows feature_like(size_t rows, size_t dims, Random& random, uint64_t seed) {
  Random mixing(seed);
  const size_t latent = std::max<size_t>(2, dims / 12);
  const Rows directions = gaussian(latent, dims, mixing);
  Rows out(rows * dims);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t l = 0; l < latent; ++l) {
      const double share = random.normal() / static_cast<double>(l + 1);
      for (size_t k = 0; k < dims; ++k) out[i * dims + k] += static_cast<float>(share) * directions[l * dims + k];
    }
    for (size_t k = 0; k < dims; ++k)
      out[i * dims + k] = std::max(0.0f, out[i * dims + k]) + 0.03f * static_cast<float>(random.normal());
  }
  return out;
}

// Tight clusters, copies, rows one unit in the last place apart.
inline Rows clustered(size_t rows, size_t dims, Random& random, uint64_t seed) {
  Random placing(seed);
  const size_t clusters = 12;
  const Rows centers = gaussian(clusters, dims, placing);
  Rows out(rows * dims);
  for (size_t i = 0; i < rows; ++i) {
    const size_t cluster = random.next() % clusters;
    const double spread = cluster % 3 == 0 ? 1e-3 : 0.2;
    for (size_t k = 0; k < dims; ++k) {
      out[i * dims + k] = centers[cluster * dims + k] + static_cast<float>(spread * random.normal());
    }
    if (i > 3 && random.next() % 8 == 0) {
      std::copy_n(out.begin() + static_cast<std::ptrdiff_t>((random.next() % i) * dims), dims,
                  out.begin() + static_cast<std::ptrdiff_t>(i * dims));
      if (random.next() % 2 == 0) out[i * dims] = std::nextafter(out[i * dims], 2.0f);
    }
  }
  return out;
}

enum class Kind { kGaussian, kFeatures, kClustered };

inline Rows drawn(Kind kind, size_t rows, size_t dims, Random& random, uint64_t seed) {
  switch (kind) {
    case Kind::kGaussian:
      return gaussian(rows, dims, random);
    case Kind::kFeatures:
      return feature_like(rows, dims, random, seed);
    case Kind::kClustered:
      break;
  }
  return clustered(rows, dims, random, seed);
}

// As the bank's, but for some that are rows of it and some that are far out.
inline Rows drawn_queries(Kind kind, size_t count, const Rows& bank, size_t dims, Random& random, uint64_t seed) {
  Rows queries = drawn(kind, count, dims, random, seed);
  const size_t rows = bank.size() / dims;
  for (size_t q = 0; q < count; q += 7) {
    float* query = queries.data() + q * dims;
    if (q % 2 == 0) std::copy_n(bank.begin() + static_cast<std::ptrdiff_t>(q % rows * dims), dims, query);
    if (q % 21 == 0) std::for_each(query, query + dims, [](float& value) { value *= 30; });
  }
  return queries;
}

}  // namespace onceover
