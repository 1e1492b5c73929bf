// Values in order of arrival → normal scores: where each lies among those before it, as a standard normal value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

double normal_cdf(double z) noexcept;
// Of p in (0, 1), to about 1e-15 in probability.
double normal_quantile(double p) noexcept;

// Sequential normal scores, Conover, Tercero-Gómez and Cordero-Franco 2017, "The sequential normal scores
// transformation". While values come in exchangeable order, whatever their distribution, the rank of each among those
// so far is uniform and independent of the ranks before it; so are these scores, of which charts thus need to know
// nothing else. Memory is fixed: the first kBaseline values are kept, and later ones are counted in the gaps between
// them (a rank is then known to a gap: its middle counts).
class SequentialRanks {
 public:
  static constexpr size_t kBaseline = 256;

  // The normal score of a finite value among those learned, and itself: 0 for the first.
  double score(float value) const noexcept;
  void learn(float value) noexcept;
  uint64_t learned() const noexcept { return uint64_t{kept_} + counted_; }
  bool is_possible() const noexcept;  // of bytes that somebody may have made

  template <typename Archive>
  void transfer(Archive& archive) {
    archive.value(kept_);
    archive.value(counted_);
    for (float& value : baseline_) archive.value(value);
    for (uint32_t& count : later_) archive.value(count);
  }

 private:
  struct Gaps {  // [first, last] of later_: more than one where the value equals what was kept
    size_t first, last;
  };
  Gaps gaps_of(float value) const noexcept;

  uint32_t kept_ = 0, counted_ = 0;  // counting ends at 2^32 − 1
  float baseline_[kBaseline] = {};   // ascending, kept_ of them
  uint32_t later_[kBaseline + 1] = {};
};

}  // namespace onceover
