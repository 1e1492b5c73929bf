// The command line of onceover-run.
#pragma once

#include <string>
#include <vector>

#include "onceover.hpp"

struct Arguments {
  std::string package;
  std::vector<std::string> images;
  onceover::InspectionOptions options;
  bool self_test = false, copy = false, regions = false, contours = false, no_idle = false, has_threshold = false;
  float threshold = 0;
  size_t repeat = 1;
  double bench_seconds = 0, rate_hz = 0;  // 0: not asked for
  uint32_t raw_format = 0, raw_height = 0,
           raw_width = 0;  // of files that are pixels and nothing else; 0: there are none
};

// Says what is wrong on standard error, or the help on standard output; then returns false, with the exit status.
bool parse_arguments(int argc, char** argv, Arguments& arguments, int& exit_status);
