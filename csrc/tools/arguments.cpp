#include "tools/arguments.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace {

constexpr const char* kHelp =
    "usage: onceover-run PACKAGE --engine NAME --library PATH [option]... IMAGE...\n"
    "Inspects pictures (PGM or PPM, 8 or 16 bits, or raw pixels) and prints one JSON object: verdicts and latency.\n"
    "\n"
    "  --engine NAME        onnxruntime or openvino\n"
    "  --library PATH       the engine's shared library: libonnxruntime.so, libopenvino_c.so\n"
    "  --device NAME        where the network runs; default: the CPU\n"
    "  --option KEY=VALUE   for the engine, in its own words\n"
    "  --cache-dir FOLDER   for compiled networks\n"
    "  --threads N          default: 1\n"
    "  --memory-limit BYTES of onceover's own buffers; default: none\n"
    "  --threshold SCORE    instead of the package's\n"
    "  --raw FORMAT:WxH     images are files of W x H pixels: gray8, rgb8, bgr8, rgba8, bgra8, nv12\n"
    "  --regions            where a picture is anomalous: box, area, peak, centroid of each region\n"
    "  --contours           the same, with the pixels of each region's outline\n"
    "  --repeat N           inspects each picture N times, for the latency\n"
    "  --bench SECONDS      instead: how long a picture takes; cold, warm, after a pause, where the time goes\n"
    "  --no-idle            with --bench: without the runs after pauses, which take 20 s\n"
    "  --rate HZ            with --bench: also when parts arrive at this rate, whether the last one is done or not\n"
    "  --self-test          first replays the package's reference images\n"
    "  --copy               reads the package into memory instead of mapping it\n"
    "  --version\n"
    "\n"
    "exit status: 0 all normal, 1 an anomaly or a failed self-test, 2 usage, 3 a package, picture or engine fails\n";

struct NamedFormat {
  const char* name;
  onceover_pixel_format format;
};
constexpr NamedFormat kFormats[] = {{"gray8", ONCEOVER_GRAY8}, {"rgb8", ONCEOVER_RGB8},   {"bgr8", ONCEOVER_BGR8},
                                    {"rgba8", ONCEOVER_RGBA8}, {"bgra8", ONCEOVER_BGRA8}, {"nv12", ONCEOVER_NV12}};

class Parser {
 public:
  Parser(int argc, char** argv, Arguments& to) : argc_(argc), argv_(argv), to_(to) {}

  bool parse() {
    for (; at_ < argc_; ++at_) {
      const std::string word = argv_[at_];
      if (word.size() < 3 || word.compare(0, 2, "--") != 0) {
        (to_.package.empty() ? to_.package : to_.images.emplace_back()) = word;
      } else if (!flag(word) && !(at_ + 1 < argc_ && value(word, argv_[at_ + 1]))) {
        return refuse("unknown, incomplete or with a value that makes no sense: " + word);
      }
    }
    if (to_.package.empty()) return refuse("a package is missing");
    if (to_.options.engine.empty()) return refuse("--engine is missing: onnxruntime or openvino");
    if (to_.images.empty() && (!to_.self_test || to_.bench_seconds > 0)) return refuse("an image is missing");
    if (to_.rate_hz > 0 && !(to_.bench_seconds > 0)) return refuse("--rate goes with --bench");
    return true;
  }

 private:
  static bool refuse(const std::string& what) {
    std::fprintf(stderr, "onceover-run: %s; see onceover-run --help\n", what.c_str());
    return false;
  }

  bool flag(const std::string& word) {
    bool* set = word == "--self-test"  ? &to_.self_test
                : word == "--copy"     ? &to_.copy
                : word == "--regions"  ? &to_.regions
                : word == "--contours" ? &to_.contours
                : word == "--no-idle"  ? &to_.no_idle
                                       : nullptr;
    if (set != nullptr) *set = true;
    to_.regions |= to_.contours;
    return set != nullptr;
  }

  bool value(const std::string& word, const char* text) {
    ++at_;
    onceover_session_options& other = to_.options.other;
    if (word == "--engine") return !(to_.options.engine = text).empty();
    if (word == "--library") return !(to_.options.engine_library = text).empty();
    if (word == "--device") return !(to_.options.device = text).empty();
    if (word == "--cache-dir") return !(to_.options.cache_dir = text).empty();
    if (word == "--option") return option(text);
    if (word == "--threads") return count(text, other.threads);
    if (word == "--memory-limit") return count(text, other.memory_limit_bytes);
    if (word == "--repeat") return count(text, to_.repeat);
    if (word == "--threshold") return threshold(text);
    if (word == "--bench") return positive(text, to_.bench_seconds);
    if (word == "--rate") return positive(text, to_.rate_hz);
    return word == "--raw" && raw(text);
  }

  bool option(const char* text) {
    const char* equals = std::strchr(text, '=');
    if (equals == nullptr) return false;
    to_.options.engine_options.emplace_back(text, equals);
    to_.options.engine_options.emplace_back(equals + 1);
    return true;
  }

  template <typename Number>
  static bool count(const char* text, Number& number) {
    char* end = nullptr;
    errno = 0;
    const unsigned long long parsed = std::strtoull(text, &end, 10);
    number = static_cast<Number>(parsed);
    return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0' && parsed > 0 && number == parsed;
  }

  static bool positive(const char* text, double& number) {
    char* end = nullptr;
    number = std::strtod(text, &end);
    return end != text && *end == '\0' && number > 0 && number <= 1e6;
  }

  bool threshold(const char* text) {
    char* end = nullptr;
    to_.has_threshold = true;
    to_.threshold = std::strtof(text, &end);
    return end != text && *end == '\0';
  }

  bool raw(const char* text) {
    for (const NamedFormat& each : kFormats) {
      const size_t length = std::strlen(each.name);
      unsigned width = 0, height = 0;
      char rest = 0;
      if (std::strncmp(text, each.name, length) != 0 || text[length] != ':') continue;
      to_.raw_format = each.format;
      const bool whole = std::sscanf(text + length + 1, "%5ux%5u%c", &width, &height, &rest) == 2;
      to_.raw_width = width;
      to_.raw_height = height;
      return whole && width > 0 && height > 0;
    }
    return false;
  }

  int argc_, at_ = 1;
  char** argv_;
  Arguments& to_;
};

}  // namespace

bool parse_arguments(int argc, char** argv, Arguments& arguments, int& exit_status) {
  exit_status = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--help") == 0) return std::fputs(kHelp, stdout), false;
    if (std::strcmp(argv[i], "--version") == 0) return std::printf("onceover-run %s\n", onceover_version()), false;
  }
  if (Parser(argc, argv, arguments).parse()) return true;
  exit_status = 2;
  return false;
}
