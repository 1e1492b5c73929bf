// onceover-run --bench: the experiments of `onceover bench`, without Python.
#pragma once

#include <string>
#include <vector>

#include "tools/arguments.h"
#include "tools/picture.h"

// One JSON object. Opens package and session itself, because that is the first experiment.
std::string bench_json(const Arguments& arguments, const onceover::InspectionOptions& options,
                       const std::vector<Picture>& pictures);
