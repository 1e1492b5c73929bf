#include "tools/report.h"

#include <algorithm>
#include <cmath>

#include "measuring/json.h"

namespace {

constexpr auto member = onceover::json_member;
using onceover::json_number;
using onceover::json_text;

std::string milliseconds(double nanoseconds) { return json_number(nanoseconds / 1e6); }

const char* verdict_name(uint32_t verdict) {
  return verdict == ONCEOVER_ANOMALOUS    ? "anomalous"
         : verdict == ONCEOVER_NORMAL     ? "normal"
         : verdict == ONCEOVER_WRONG_PART ? "wrong_part"
                                          : "uncalibrated";
}

std::string list_json(std::initializer_list<uint32_t> numbers) {
  std::string text;
  for (const uint32_t number : numbers) text += (text.empty() ? "[" : ", ") + std::to_string(number);
  return text + "]";
}

}  // namespace

std::string session_json(const onceover_session_info& info) {
  return member("engine", json_text(info.engine_version)) + ", " + member("isa", json_text(info.isa)) + ", " +
         member("threads", std::to_string(info.threads)) + ", " +
         member("memory_bytes", std::to_string(info.memory_bytes));
}

std::string region_json(const onceover_region& r, double p_value, const std::vector<onceover_point>* contour) {
  std::string text = "{" + member("box", list_json({r.top, r.left, r.bottom, r.right})) + ", " +
                     member("area", std::to_string(r.area)) + ", " +
                     member("peak", list_json({r.peak_row, r.peak_column})) + ", " +
                     member("peak_value", json_number(static_cast<double>(r.peak_value))) + ", " +
                     member("p_value", json_number(p_value)) + ", " +
                     member("centroid", "[" + json_number(static_cast<double>(r.centroid_row)) + ", " +
                                            json_number(static_cast<double>(r.centroid_column)) + "]");
  if (contour != nullptr) {
    std::string list;
    for (const onceover_point& point : *contour)
      list += (list.empty() ? "" : ", ") + list_json({point.row, point.column});
    text += ", " + member("contour", "[" + list + "]");
  }
  return text + "}";
}

std::string result_json(const std::string& path, const onceover_result& r, const std::vector<std::string>* regions) {
  std::string text =
      "{" + member("image", json_text(path)) + ", " + member("verdict", json_text(verdict_name(r.verdict))) + ", " +
      member("score", json_number(static_cast<double>(r.score))) + ", " +
      member("threshold", json_number(static_cast<double>(r.threshold))) + ", " +
      member("p_value", json_number(r.p_value)) + ", " +
      member("map_maximum", json_number(static_cast<double>(r.map_maximum))) + ", " +
      member("patch", "[" + std::to_string(r.patch_row) + ", " + std::to_string(r.patch_column) + "]") + ", " +
      member("nearest_row", std::to_string(r.nearest_row)) + ", " + member("product", std::to_string(r.product)) +
      ", " + member("gate_ratio", json_number(r.gate_ratio));
  if (regions != nullptr) {
    std::string list;
    for (const std::string& region : *regions) list += (list.empty() ? "" : ", ") + region;
    text += ", " + member("regions", "[" + list + "]");
  }
  const auto ms = [](uint64_t ns) { return milliseconds(static_cast<double>(ns)); };
  return text + ", " + member("prepare_ms", ms(r.prepare_ns)) + ", " + member("engine_ms", ms(r.engine_ns)) + ", " +
         member("score_ms", ms(r.score_ns)) + ", " + member("map_ms", ms(r.map_ns)) + "}";
}

std::string latency_json(std::vector<uint64_t> ns) {
  if (ns.empty()) return "null";
  std::sort(ns.begin(), ns.end());
  // The smallest time that at least this part of the runs took no longer than.
  const auto quantile = [&ns](double part) {
    const auto rank = static_cast<size_t>(std::ceil(part * static_cast<double>(ns.size())));
    return milliseconds(static_cast<double>(ns[std::max<size_t>(rank, 1) - 1]));
  };
  return "{" + member("runs", std::to_string(ns.size())) + ", " + member("p50_ms", quantile(0.5)) + ", " +
         member("p99_ms", quantile(0.99)) + ", " + member("p99_99_ms", quantile(0.9999)) + ", " +
         member("max_ms", quantile(1)) + "}";
}
