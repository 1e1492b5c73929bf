// A p-chart: how many parts of each batch are rejected, with exact limits.
#pragma once

#include <cstdint>

namespace onceover {

struct CountLimits {
  int64_t lower, upper;  // as few as `lower` (−1: never) or as many as `upper` (batch + 1: never) are an alarm
};

// At most `tail` of probability on either side of a batch, whose rejected parts are binomial with this rate …
CountLimits binomial_limits(uint32_t batch, double rate, double tail) noexcept;
// … or, where the rate is known from `rejected` of `parts` parts before, beta-binomial from Jeffreys' prior
// Beta(½, ½): as wide as few parts leave it uncertain.
CountLimits predictive_limits(uint32_t batch, uint64_t rejected, uint64_t parts, double tail) noexcept;

class RejectedShareChart {
 public:
  RejectedShareChart() = default;
  // rate: of the line when all is well, 0 to learn it from the batches. tail: of one batch, per side.
  RejectedShareChart(uint32_t batch, double rate, double tail) noexcept : batch_(batch), rate_(rate), tail_(tail) {}

  // True when this part ends a batch that is beyond the limits; one within them is learned from, if `learn`.
  bool update(bool is_rejected, bool learn) noexcept;
  void restart() noexcept { in_batch_ = rejected_in_batch_ = 0; }
  bool has_batch() const noexcept { return last_parts_ > 0; }
  uint32_t last_rejected() const noexcept { return last_rejected_; }  // of the last whole batch
  CountLimits last_limits() const noexcept { return {last_lower_, last_upper_}; }
  bool is_possible() const noexcept;
  bool is_like(const RejectedShareChart& other) const noexcept {  // made alike
    return batch_ == other.batch_ && rate_ == other.rate_ && tail_ == other.tail_;
  }

  template <typename Archive>
  void transfer(Archive& archive) {
    archive.value(batch_);
    archive.value(rate_);
    archive.value(tail_);
    archive.value(parts_);
    archive.value(rejected_);
    archive.value(in_batch_);
    archive.value(rejected_in_batch_);
    archive.value(last_parts_);
    archive.value(last_rejected_);
    archive.value(last_lower_);
    archive.value(last_upper_);
  }

 private:
  uint32_t batch_ = 0;
  double rate_ = 0, tail_ = 0;
  uint64_t parts_ = 0, rejected_ = 0;  // in batches that were learned from
  uint32_t in_batch_ = 0, rejected_in_batch_ = 0, last_parts_ = 0, last_rejected_ = 0;
  int64_t last_lower_ = -1, last_upper_ = 0;
};

}  // namespace onceover
