// onceover-run: inspects pictures without Python, over the public API alone.
#include <chrono>
#include <cstdio>
#include <stdexcept>

#include "measuring/json.h"
#include "tools/arguments.h"
#include "tools/bench.h"
#include "tools/picture.h"
#include "tools/report.h"

namespace {

constexpr int kNormal = 0, kAnomalous = 1, kFailed = 3;

Picture read(const Arguments& arguments, const std::string& path) {
  if (arguments.raw_format == 0) return read_netpbm(path);
  return read_raw(path, static_cast<onceover_pixel_format>(arguments.raw_format), arguments.raw_height,
                  arguments.raw_width);
}

struct Run {
  const Arguments& arguments;
  onceover::InspectionSession session;
  std::vector<uint64_t> nanoseconds;
  int exit_status;

  std::string inspect(const std::string& path) {
    const Picture picture = read(arguments, path);
    onceover_result result = {};
    for (size_t i = 0; i < arguments.repeat; ++i) {
      const auto start = std::chrono::steady_clock::now();
      result = session.run(picture.image);
      const auto passed = std::chrono::steady_clock::now() - start;
      nanoseconds.push_back(static_cast<uint64_t>(std::chrono::nanoseconds(passed).count()));
    }
    if (result.verdict == ONCEOVER_ANOMALOUS || result.verdict == ONCEOVER_WRONG_PART) exit_status = kAnomalous;
    if (!arguments.regions) return result_json(path, result, nullptr);
    const std::vector<std::string> regions = find_regions(picture.image.height, picture.image.width);
    return result_json(path, result, &regions);
  }

  // JSON of the regions of the last picture.
  std::vector<std::string> find_regions(uint32_t height, uint32_t width) {
    const std::vector<float> map = session.map(height, width);
    std::vector<std::string> texts;
    for (const onceover_region& region : session.regions(map, height, width)) {
      std::vector<onceover_point> contour;
      if (arguments.contours) contour = session.contour(map, height, width, region);
      texts.push_back(region_json(region, session.p_value(region), arguments.contours ? &contour : nullptr));
    }
    return texts;
  }

  std::string inspect_all() {
    std::string list;
    for (const std::string& path : arguments.images) list += (list.empty() ? "\n  " : ",\n  ") + inspect(path);
    return list;
  }
};

int run(const Arguments& arguments) {
  onceover::InspectionOptions options = arguments.options;
  if (arguments.regions) options.other.max_map_width = 32768;  // pictures of any size may follow
  if (arguments.bench_seconds > 0) {
    std::vector<Picture> pictures;
    for (const std::string& path : arguments.images) pictures.push_back(read(arguments, path));
    std::puts(bench_json(arguments, options, pictures).c_str());
    return kNormal;
  }
  Run run{arguments,
          onceover::InspectionSession(onceover::PackageFile::open(arguments.package, arguments.copy), options),
          {},
          kNormal};
  std::string text =
      "{\"package\": " + onceover::json_text(arguments.package) + ", " + session_json(run.session.info());
  if (arguments.self_test) text += ", \"self_test_images\": " + std::to_string(run.session.self_test());
  if (arguments.has_threshold) run.session.set_threshold(arguments.threshold);
  text += ", \"images\": [" + run.inspect_all() + "]";
  text += ", \"latency\": " + latency_json(run.nanoseconds) + "}";
  std::puts(text.c_str());
  return run.exit_status;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  int exit_status = 0;
  if (!parse_arguments(argc, argv, arguments, exit_status)) return exit_status;
  try {
    return run(arguments);
  } catch (const onceover::StatusError& error) {
    std::fprintf(stderr, "onceover-run: %s\n", error.what());
    return error.status() == ONCEOVER_VERIFICATION ? kAnomalous : kFailed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "onceover-run: %s\n", error.what());
    return kFailed;
  }
}
