#include "monitor/rejected_share.h"

#include <cmath>

namespace onceover {
namespace {

// Limits from the logarithm of P(0) and ratio(x) = P(x + 1) / P(x): sums from either end, which lose no digits there.
template <typename Ratio>
CountLimits limits(uint32_t batch, double log_none, double log_all, const Ratio& ratio, double tail) noexcept {
  CountLimits found = {-1, int64_t{batch} + 1};
  double log_probability = log_none, sum = 0;
  for (int64_t x = 0; x <= int64_t{batch}; ++x) {  // P(X ≤ x)
    if ((sum += std::exp(log_probability)) > tail) break;
    found.lower = x;
    if (x < int64_t{batch}) log_probability += std::log(ratio(x));
  }
  log_probability = log_all;
  sum = 0;
  for (int64_t x = batch; x >= 0; --x) {  // P(X ≥ x)
    if ((sum += std::exp(log_probability)) > tail) break;
    found.upper = x;
    if (x > 0) log_probability -= std::log(ratio(x - 1));
  }
  return found;
}

}  // namespace

CountLimits binomial_limits(uint32_t batch, double rate, double tail) noexcept {
  const double n = batch;
  const auto ratio = [=](int64_t x) {
    return (n - static_cast<double>(x)) / static_cast<double>(x + 1) * (rate / (1 - rate));
  };
  return limits(batch, n * std::log1p(-rate), n * std::log(rate), ratio, tail);
}

CountLimits predictive_limits(uint32_t batch, uint64_t rejected, uint64_t parts, double tail) noexcept {
  const double n = batch, a = static_cast<double>(rejected) + 0.5, b = static_cast<double>(parts - rejected) + 0.5;
  const auto ratio = [=](int64_t count) {
    const auto x = static_cast<double>(count);
    return (n - x) * (a + x) / ((x + 1) * (b + n - x - 1));
  };
  double log_none = 0, log_all = 0;  // Π (b + i) / (a + b + i) and Π (a + i) / (a + b + i)
  for (uint32_t i = 0; i < batch; ++i) {
    log_none += std::log((b + i) / (a + b + i));
    log_all += std::log((a + i) / (a + b + i));
  }
  return limits(batch, log_none, log_all, ratio, tail);
}

bool RejectedShareChart::update(bool is_rejected, bool learn) noexcept {
  rejected_in_batch_ += is_rejected ? 1 : 0;
  if (++in_batch_ < batch_) return false;
  const CountLimits limit =
      rate_ > 0 ? binomial_limits(batch_, rate_, tail_) : predictive_limits(batch_, rejected_, parts_, tail_);
  last_parts_ = in_batch_;
  last_rejected_ = rejected_in_batch_;
  last_lower_ = limit.lower;
  last_upper_ = limit.upper;
  restart();
  const bool is_beyond = last_rejected_ <= limit.lower || last_rejected_ >= limit.upper;
  if (learn && !is_beyond) {
    parts_ += batch_;
    rejected_ += last_rejected_;
  }
  return is_beyond;
}

bool RejectedShareChart::is_possible() const noexcept {
  return batch_ > 0 && rate_ >= 0 && rate_ < 1 && tail_ > 0 && tail_ < 1 && rejected_ <= parts_ && in_batch_ < batch_ &&
         rejected_in_batch_ <= in_batch_ && (last_parts_ == 0 || last_parts_ == batch_) &&
         last_rejected_ <= last_parts_;
}

}  // namespace onceover
