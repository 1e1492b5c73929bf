// What onceover-run prints: one JSON object, member by member.
#pragma once

#include <string>
#include <vector>

#include "onceover.hpp"

std::string session_json(const onceover_session_info& info);
std::string region_json(const onceover_region& region, double p_value,
                        const std::vector<onceover_point>* contour);  // may be nullptr
std::string result_json(const std::string& path, const onceover_result& result,
                        const std::vector<std::string>* regions);  // JSON of each; nullptr: not asked for
std::string latency_json(std::vector<uint64_t> nanoseconds);       // null without any
