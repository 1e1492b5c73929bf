// A line in C++11: verdicts and regions of pictures, corrections from the journal beside the package, and a drift
// monitor that goes on where it was. c++ line.cpp $(pkg-config --cflags --libs onceover) -o line
//   ./line part.onceover /path/of/libonnxruntime.so line.state picture.ppm…
// Pictures are binary PPM of 8 bits. `--good` before one of them: a person says that it is, and parts like it pass
// then.
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <onceover_corrections.hpp>
#include <onceover_monitor.hpp>

struct Picture {
  std::vector<unsigned char> pixels;  // RGB, row by row
  unsigned height = 0, width = 0;

  explicit Picture(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    unsigned most = 0;
    if (file >> magic >> width >> height >> most && magic == "P6" && most == 255 && width <= 32768 && height <= 32768) {
      file.get();  // the one white space before the pixels
      pixels.resize(size_t{height} * width * 3);
      file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
    } else {
      file.setstate(std::ios::failbit);
    }
    if (!file) throw std::runtime_error(path + ": not a binary PPM of 8 bits");
  }
};

static onceover::LineMonitor go_on(const onceover::PackageFile& package, const std::string& state) {
  std::ifstream file(state, std::ios::binary);
  if (!file) return onceover::LineMonitor(package);  // the first day
  const std::vector<unsigned char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return onceover::LineMonitor::load(package, bytes);
}

static void keep(const onceover::LineMonitor& monitor, const std::string& state) {
  const std::vector<unsigned char> bytes = monitor.save();
  std::ofstream file(state + ".new", std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();  // who is killed leaves the old state or the new one; against power cuts add an fsync here
  if (!file || std::rename((state + ".new").c_str(), state.c_str()) != 0)
    throw std::runtime_error(state + ": not saved");
}

static int inspect(int argc, char** argv) {
  const onceover::PackageFile package = onceover::PackageFile::open(argv[1]);
  onceover::InspectionOptions options("onnxruntime", argv[2]);
  options.other.max_map_width = 32768;  // pictures of any size may come
  onceover::InspectionSession session(package, options);
  onceover::CorrectionJournal journal(package, std::string(argv[1]) + ".journal");
  if (journal.info().operations > 0) journal.apply_to(session);
  onceover::LineMonitor monitor = go_on(package, argv[3]);
  bool all_normal = true, is_good = false;
  for (int i = 4; i < argc; ++i) {
    const std::string path = argv[i];
    if (path == "--good") {
      is_good = true;
      continue;
    }
    const Picture picture(path);
    const onceover_image image = onceover::image(ONCEOVER_RGB8, picture.pixels.data(), picture.height, picture.width);
    const onceover_result result = session.run(image);
    const bool anomalous = result.verdict == ONCEOVER_ANOMALOUS;
    std::printf("%s: %s, score %.9g\n", argv[i], anomalous ? "anomalous" : "not anomalous", double{result.score});
    const std::vector<float> map = session.map(picture.height, picture.width);
    for (const onceover_region& region : session.regions(map, picture.height, picture.width)) {
      std::printf("  at %u,%u: %u pixels, p %.3g\n", region.peak_row, region.peak_column, region.area,
                  session.p_value(region));
    }
    const uint32_t alarms = monitor.update(result, image);
    if (((alarms >> ONCEOVER_CHART_BRIGHTNESS) & 1) != 0) std::printf("  look at the light\n");
    if (anomalous && is_good) {
      journal.confirm({journal.propose(session, path)}, "the operator", std::time(nullptr));
      journal.apply_to(session);
      std::printf("  parts like it pass from now on\n");
    } else if (result.verdict != ONCEOVER_NORMAL) {
      all_normal = false;
    }
    is_good = false;
  }
  keep(monitor, argv[3]);
  return all_normal ? 0 : 1;
}

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s PACKAGE ENGINE_LIBRARY STATE PICTURE.ppm...\n", argv[0]);
    return 2;
  }
  try {
    return inspect(argc, argv);
  } catch (const std::exception& error) {  // StatusError tells the status, too
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
