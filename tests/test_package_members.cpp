// The fixed members config, calibration and parity: write and read are inverse, and each field's damage is named.
#include <cmath>
#include <functional>
#include <limits>

#include "check.h"
#include "package_samples.h"

using namespace samples;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

PackagePointer open_sample() { return Package::view(sample_bytes().data(), sample_bytes().size(), "test"); }

void a_config_survives_write_and_read() {
  const Config expected = sample_config();
  const Config got = read_config(*open_sample());
  CHECK(got.preprocessing.height == 32 && got.preprocessing.width == 48);
  CHECK(std::memcmp(got.preprocessing.mean, expected.preprocessing.mean, sizeof got.preprocessing.mean) == 0);
  CHECK(std::memcmp(got.preprocessing.std, expected.preprocessing.std, sizeof got.preprocessing.std) == 0);
  CHECK(got.grid_height == 4 && got.grid_width == 6 && got.embedding_dim == 16 && got.blur_sigma == 4);
  CHECK(write_config(got) == sample().config);
}

void a_calibration_survives_and_counts_p_values() {
  const PackagePointer package = open_sample();
  const Calibration got = read_calibration(*package);
  CHECK(got.calibrated && got.false_alarm_rate == 0.05 && got.threshold == 18 && got.map_threshold == 9);
  CHECK(got.n == 19 && got.image_count == 23);
  for (uint32_t i = 0; i < got.n; ++i) {
    CHECK(got.scores[i] == static_cast<float>(i) && got.map_maxima[i] == static_cast<float>(i) / 2);
  }
  // Scores are 0 … 18, so #{scores ≥ 18} = 1, #{≥ 18.5} = 0, #{≥ −1} = 19, #{≥ 9.5} = 9; p = (1 + that) / 20.
  CHECK(got.p_value(18) == 2.0 / 20 && got.p_value(18.5f) == 1.0 / 20);
  CHECK(got.p_value(-1) == 1 && got.p_value(9.5f) == 10.0 / 20);
  CHECK(Calibration().p_value(3) == 1);
  // Map maxima are 0, 0.5 … 9: #{≥ 9} = 1, #{≥ 9.1} = 0, #{≥ 0} = 19.
  CHECK(got.map_p_value(9) == 2.0 / 20 && got.map_p_value(9.1f) == 1.0 / 20 && got.map_p_value(0) == 1);
  CHECK(Calibration().map_p_value(3) == 1);
  CHECK(!got.cross_conformal && got.confidence == 0);
}

Calibration read_back(const Bytes& record) {
  static Forgery forgery;  // what is read stays in it
  std::memcpy(forgery.member<CalibrationRecord>("calibration"), record.data(), record.size());
  const Bytes& sealed = forgery.sealed();
  return read_calibration(*Package::view(sealed.data(), sealed.size(), "test"));
}

void what_a_calibration_promises_survives() {
  const std::vector<float> scores(19, 1.0f);
  const auto write = [&scores](bool calibrated, const Promise& promise) {
    return write_calibration(calibrated, 0.3, 5, 6, scores, scores, 19, promise);
  };
  const Calibration confident = read_back(write(true, {false, 0.95}));
  CHECK(confident.calibrated && !confident.cross_conformal && confident.confidence == 0.95);
  const Calibration crossed = read_back(write(true, {true, 0}));
  CHECK(crossed.calibrated && crossed.cross_conformal && crossed.confidence == 0 && crossed.threshold == 5);
  const Calibration none = read_back(write(false, {true, 0.95}));  // nothing is promised
  CHECK(!none.calibrated && !none.cross_conformal && none.confidence == 0);
}

void an_uncalibrated_package_has_infinite_thresholds() {
  Forgery forgery;  // the scores stay: too few parts for a threshold, but enough for p-values
  auto* record = forgery.member<CalibrationRecord>("calibration");
  const std::vector<float> scores(19, 1.0f);
  const Bytes bytes = write_calibration(false, 0.3, 5, 6, scores, scores, 19);
  std::memcpy(record, bytes.data(), bytes.size());
  const Bytes& sealed = forgery.sealed();
  const Calibration got = read_calibration(*Package::view(sealed.data(), sealed.size(), "test"));
  CHECK(!got.calibrated && got.threshold == kInfinity && got.map_threshold == kInfinity && got.n == 19);
  CHECK(got.false_alarm_rate == 0);
  CHECK(write_calibration(false, 0, 0, 0, {}, {}, 0).size() == sizeof(CalibrationRecord));
}

void a_parity_record_survives_with_its_pixels_unpadded() {
  const PackagePointer package = open_sample();
  const Parity got = read_parity(*package, sample_config());
  CHECK(got.images.size() == 2 && got.relative_tolerance == 1e-4f && got.map_step == 4);
  const ParityImage& rgb = got.images[0];
  CHECK(rgb.image.height == 10 && rgb.image.width == 12 && rgb.image.stride_bytes == 36);
  CHECK(rgb.image.format == PixelFormat::kRgb8 && rgb.score == 2.875f && rgb.verdict == 1);
  const ParityImage& gray = got.images[1];
  CHECK(gray.image.width == 33 && gray.image.stride_bytes == 33 && gray.verdict == 2);
  for (size_t y = 0; y < 10; ++y) {
    CHECK(std::memcmp(rgb.image.data + 36 * y, sample().pixels.data() + 40 * y, 36) == 0);
    CHECK(std::memcmp(gray.image.data + 33 * y, sample().pixels.data() + 40 * (9 - y), 33) == 0);
  }
  CHECK(std::memcmp(gray.patch_scores, sample().patch_scores.data(), 24 * sizeof(float)) == 0);
  CHECK(std::memcmp(rgb.map, sample().map.data(), 8 * 12 * sizeof(float)) == 0);
  CHECK(write_parity(got, sample_config()) == sample().parity);
  Parity none;
  none.relative_tolerance = 1e-4f;
  CHECK(write_parity(none, sample_config()).size() == sizeof(ParityHeader));
}

struct Damage {
  std::function<void(Forgery&)> make;
  const char* words;
};

template <typename Read>
void each_is_refused(const std::vector<Damage>& damages, const Read& read) {
  for (const Damage& damage : damages) {
    Forgery forgery;
    damage.make(forgery);
    const ExactCopy copy(forgery.sealed().data(), forgery.bytes.size());
    const PackagePointer package = copy.view();  // its hashes are right: only the meaning is wrong
    CHECK_THROWS(read(*package), Status::kPackage, damage.words);
  }
}

void each_config_field_is_checked() {
  const auto edit = [](auto change) {
    return [change](Forgery& forgery) { change(*forgery.member<ConfigRecord>("config")); };
  };
  each_is_refused(
      {{edit([](auto& r) { r.record_bytes = 255; }), "test: member 'config': field 'record_bytes' is 255"},
       {edit([](auto& r) { r.record_bytes = 320; }), "'record_bytes' is 320, expected 256"},
       {edit([](auto& r) { r.scorer = 2; }), "'scorer' is 2, expected 1"},
       {edit([](auto& r) { r.input_height = 0; }), "'input_height' is 0, expected 1 to 4096"},
       {edit([](auto& r) { r.input_width = 4097; }), "'input_width' is 4097, expected 1 to 4096"},
       {edit([](auto& r) { r.color = 0; }), "'color' is 0"},
       {edit([](auto& r) { r.resize = 3; }), "'resize' is 3"},
       {edit([](auto& r) { r.mean[1] = kNan; }), "'mean[1]' is nan"},
       {edit([](auto& r) { r.std[2] = kInfinity; }), "'std[2]' is inf"},
       {edit([](auto& r) { r.std[0] = 0; }), "'std' is 0, expected a positive number"},
       {edit([](auto& r) { r.mean[1] = 3e38f, r.std[1] = 0.5f; }), "'mean, std' is 3.00000001e+38, 0.5, expected"},
       {edit([](auto& r) { r.mean[2] = 0, r.std[2] = 1e-45f; }), "finite (0 - mean) / std and (1 - mean)"},
       {edit([](auto& r) {
          r.input_height = r.input_width = r.grid_height = r.grid_width = 4096, r.embedding_dim = 17;
        }),
        "'grid_height * grid_width * embedding_dim' is 285212672, expected 1 to 268435456"},
       {edit([](auto& r) { r.grid_height = 33; }), "'grid_height' is 33, expected 1 to 32"},
       {edit([](auto& r) { r.grid_width = 0; }), "'grid_width' is 0, expected 1 to 48"},
       {edit([](auto& r) { r.embedding_dim = 0; }), "'embedding_dim' is 0"},
       {edit([](auto& r) { r.neighbors = 9; }), "'neighbors' is 9"},
       {edit([](auto& r) { r.image_score = 2; }), "'image_score' is 2"},
       {edit([](auto& r) { r.blur_sigma = -1; }), "'blur_sigma' is -1"},
       {edit([](auto& r) { r.blur_sigma = kNan; }), "'blur_sigma' is nan"},
       {edit([](auto& r) { r.graph_format = 2; }), "'graph_format' is 2"},
       {edit([](auto& r) { r.zeros[40] = 1; }), "'zeros' is not zero at byte 160"},
       {[](Forgery& f) { f.rename(0, "conf"), f.entry(0)->flags = 0; }, "member 'config' is missing"},
       {[](Forgery& f) { f.rename(0, "conf"), f.entry(0)->flags = 0, f.rename(1, "config"); },
        "'size in bytes' is 18"}},
      [](const Package& package) { read_config(package); });
}

void each_calibration_field_is_checked() {
  const auto edit = [](auto change) {
    return [change](Forgery& forgery) { change(*forgery.member<CalibrationRecord>("calibration")); };
  };
  const auto value = [](size_t i, float to) {
    return [i, to](Forgery& f) { f.member<float>("calibration")[16 + i] = to; };  // after 64 bytes of record
  };
  each_is_refused(
      {{edit([](auto& r) { r.record_bytes = 60; }), "'record_bytes' is 60, expected 64"},
       {edit([](auto& r) { r.record_bytes = 72, r.score_count = 18; }), "'record_bytes' is 72, expected 64"},
       {edit([](auto& r) { r.score_count = 20; }), "64, 20, expected record_bytes + 8 * score_count = 216"},
       {edit([](auto& r) { r.score_count = UINT32_MAX; }), "64, 4294967295"},
       {edit([](auto& r) { r.state = 3; }), "'state' is 3"},
       {edit([](auto& r) { r.confidence = 1; }), "'confidence' is 1, expected 0 to below 1"},
       {edit([](auto& r) { r.confidence = -0.5; }), "'confidence' is -0.5"},
       {edit([](auto& r) { r.confidence = std::nan(""); }), "'confidence' is nan"},
       {edit([](auto& r) { r.state = 2, r.confidence = 0.95; }), "'confidence' is 0.95, expected 0"},
       {edit([](auto& r) { r.state = 0; }), "'false_alarm_rate' is 0.05, expected 0"},
       {edit([](auto& r) { r.false_alarm_rate = 0; }), "'false_alarm_rate' is 0, expected above 0"},
       {edit([](auto& r) { r.false_alarm_rate = 1; }), "'false_alarm_rate' is 1"},
       {edit([](auto& r) { r.false_alarm_rate = std::nan(""); }), "'false_alarm_rate' is nan"},
       {edit([](auto& r) { r.threshold = kInfinity; }), "'threshold' is inf"},
       {edit([](auto& r) { r.map_threshold = kNan; }), "'map_threshold' is nan"},
       {edit([](auto& r) { r.image_count = 18; }), "'image_count' is 18"},
       {edit([](auto& r) { r.zeros[23] = 1; }), "'zeros'"},
       {value(3, kNan), "'scores[3]' is nan"},
       {value(18, kInfinity), "'scores[18]' is inf"},
       {value(5, 100), "'scores' is not sorted at 6"},
       {value(19 + 18, -1), "'map_maxima' is not sorted at 18"}},
      [](const Package& package) { read_calibration(package); });
}

void each_parity_field_is_checked() {
  const auto header = [](auto change) {
    return [change](Forgery& forgery) { change(*forgery.member<ParityHeader>("parity")); };
  };
  const auto edit = [](auto change) {
    return [change](Forgery& f) { change(reinterpret_cast<ParityRecord*>(f.member<ParityHeader>("parity") + 1)[1]); };
  };
  constexpr uint64_t kHuge = UINT64_MAX - 3;
  each_is_refused(
      {{header([](auto& h) { h.record_bytes = 63; }), "test: member 'parity': field 'record_bytes' is 63"},
       {header([](auto& h) { h.record_bytes = UINT32_MAX; }), "'record_bytes' is 4294967295"},
       {header([](auto& h) { h.image_count = UINT32_MAX; }), "'image_count' is 4294967295, expected 0 to 1024"},
       {header([](auto& h) { h.image_count = 1024; }), "'size in bytes'"},
       {header([](auto& h) { h.relative_tolerance = 0; }), "'relative_tolerance' is 0"},
       {header([](auto& h) { h.relative_tolerance = 0.2f; }), "'relative_tolerance' is 0.2"},
       {header([](auto& h) { h.relative_tolerance = kNan; }), "'relative_tolerance' is nan"},
       {header([](auto& h) { h.map_step = 0; }), "'map_step' is 0"},
       {header([](auto& h) { h.map_step = 1; }), "field 'map_offset'"},  // 32 · 48 floats do not fit
       {header([](auto& h) { h.zeros[0] = 1; }), "'zeros'"},
       {edit([](auto& r) { r.height = 0; }), "'height' is 0"},
       {edit([](auto& r) { r.width = 40000; }), "'width' is 40000"},
       {edit([](auto& r) { r.height = r.width = 32768; }), "'pixels' is 1073741824"},
       {edit([](auto& r) { r.height = 11; }), "'pixels_bytes' is 330, expected 363"},
       {edit([](auto& r) { r.pixel_format = 0; }), "'pixel_format' is 0"},
       {edit([](auto& r) { r.pixel_format = 11; }), "'pixel_format' is 11"},
       {edit([](auto& r) { r.pixel_format = 2; }), "'pixels_bytes' is 330, expected 990"},
       {edit([](auto& r) { r.verdict = 3; }), "'verdict' is 3"},
       {edit([](auto& r) { r.score = kNan; }), "'score' is nan"},
       {edit([](auto& r) { r.zero = 1; }), "'zero' is 1"},
       {edit([](auto& r) { r.zeros[7] = 1; }), "'zeros'"},
       {edit([](auto& r) { r.pixels_bytes = kHuge; }), "'pixels_bytes'"},
       {edit([](auto& r) { r.pixels_offset = kHuge; }), "field 'pixels_offset'"},
       {edit([](auto& r) { r.pixels_offset = 64; }), "field 'pixels_offset'"},  // within the records
       {edit([](auto& r) { r.patch_scores_offset += 2; }), "field 'patch_scores_offset'"},
       {edit([](auto& r) { r.map_offset += 4; }), "field 'map_offset'"},
       {[](Forgery& f) {
          auto* member = f.member<uint8_t>("parity");
          const auto* record = reinterpret_cast<ParityRecord*>(member + sizeof(ParityHeader));
          reinterpret_cast<float*>(member + record->map_offset)[7] = kInfinity;
        },
        "'map[7]' is inf"}},
      [](const Package& package) { read_parity(package, sample_config()); });
}

void a_newer_minor_version_is_not_called_damaged() {
  Forgery forgery;
  forgery.header()->minor = kFormatMinor + 1;
  forgery.member<ConfigRecord>("config")->scorer = 2;
  const Bytes& sealed = forgery.sealed();
  const PackagePointer package = Package::view(sealed.data(), sealed.size(), "test");
  CHECK_THROWS(read_config(*package), Status::kUnsupported, "'scorer' is 2, expected 1; the package is newer");
}

// A package of one member: `record` and, behind it, what a later version appended.
Bytes appended_to(const Bytes& record, const char* name, uint16_t minor) {
  Bytes longer = record;
  longer.resize(record.size() + 64, 0xaa);
  const auto size = static_cast<uint32_t>(longer.size());
  std::memcpy(longer.data(), &size, sizeof size);  // record_bytes
  PackageWriter writer;
  writer.add(name, longer.data(), longer.size(), DataType::kBytes, {}, true);
  Forgery forgery;
  forgery.bytes = writer.bytes();
  forgery.header()->minor = minor;
  return forgery.sealed();
}

void bytes_behind_a_known_record_are_ignored_in_newer_packages_only() {
  const Bytes calibration = write_calibration(false, 0, 0, 0, {}, {}, 0);
  const auto view = [](const Bytes& bytes) { return Package::view(bytes.data(), bytes.size(), "test"); };
  const Bytes newer = appended_to(sample().config, "config", kFormatMinor + 1);
  CHECK(read_config(*view(newer)).embedding_dim == 16);
  const Bytes same = appended_to(sample().config, "config", kFormatMinor);
  CHECK_THROWS(read_config(*view(same)), Status::kPackage, "'record_bytes' is 320, expected 256");
  const Bytes newer_calibration = appended_to(calibration, "calibration", kFormatMinor + 1);
  CHECK(read_calibration(*view(newer_calibration)).n == 0);
  const Bytes same_calibration = appended_to(calibration, "calibration", kFormatMinor);
  CHECK_THROWS(read_calibration(*view(same_calibration)), Status::kPackage, "'record_bytes' is 128, expected 64");
}

// A newer minor version may have longer records, so their bounds are checked by arithmetic that must not overflow.
void the_sizes_of_newer_records_are_bounded() {
  for (const uint32_t size : {60u, 66u, 128u, UINT32_MAX, UINT32_MAX - 3}) {
    Forgery forgery;
    forgery.header()->minor = kFormatMinor + 1;
    forgery.member<CalibrationRecord>("calibration")->record_bytes = size;
    const ExactCopy copy(forgery.sealed().data(), forgery.bytes.size());
    CHECK_THROWS(read_calibration(*copy.view()), Status::kUnsupported, "'record_bytes");
  }
  for (const uint32_t size : {63u, 4097u, UINT32_MAX}) {
    Forgery forgery;
    forgery.header()->minor = kFormatMinor + 1;
    forgery.member<ParityHeader>("parity")->record_bytes = size;
    const ExactCopy copy(forgery.sealed().data(), forgery.bytes.size());
    CHECK_THROWS(read_parity(*copy.view(), sample_config()), Status::kUnsupported, "'record_bytes'");
  }
}

void the_writers_refuse_what_the_readers_would() {
  Config config = sample_config();
  config.preprocessing.std[1] = 0;
  CHECK_THROWS(write_config(config), Status::kUsage, "member 'config': field 'std' is 0");
  CHECK_THROWS(write_calibration(true, 0.05, 1, 1, {}, {}, 0), Status::kUsage, "'score_count' is 0");
  CHECK_THROWS(write_calibration(true, 0.05, 1, 1, {1, kNan}, {1, 1}, 2), Status::kUsage, "'scores[1]' is nan");
  CHECK_THROWS(write_calibration(true, 0.05, 1, 1, {1, 2}, {1}, 2), Status::kUsage, "'map_maxima count' is 1");
  CHECK_THROWS(write_calibration(true, 0.05, kInfinity, 1, {1}, {1}, 1), Status::kUsage, "'threshold' is inf");
  CHECK_THROWS(write_calibration(true, 1.5, 1, 1, {1}, {1}, 1), Status::kUsage, "'false_alarm_rate' is 1.5");
  Parity parity = sample().parity_record();
  parity.map_step = 0;
  CHECK_THROWS(write_parity(parity, sample_config()), Status::kUsage, "'map_step' is 0");
  parity = sample().parity_record();
  parity.images[1].verdict = 3;
  CHECK_THROWS(write_parity(parity, sample_config()), Status::kUsage, "'verdict' is 3");
  parity = sample().parity_record();
  parity.images[0].image.height = 1;
  CHECK_THROWS(write_parity(parity, sample_config()), Status::kInput, "");
}

// Random bits in the members, hashes right: an Error, or values within the bounds that the session relies on.
void forged_members_never_crash() {
  std::mt19937 random(5);
  size_t accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    Forgery forgery;
    const char* names[] = {"config", "calibration", "parity"};
    const char* name = names[i % 3];
    const size_t size = std::min<size_t>(forgery.named(name)->size_bytes, 64 + 2 * 64);
    forgery.member<uint8_t>(name)[random() % size] ^= static_cast<uint8_t>(1u << (random() % 8));
    const ExactCopy copy(forgery.sealed().data(), forgery.bytes.size());
    try {
      const PackagePointer package = copy.view();
      const Config config = read_config(*package);
      const Calibration calibration = read_calibration(*package);
      double sum = calibration.n > 0 ? calibration.map_maxima[calibration.n - 1] : 0;
      for (const ParityImage& each : read_parity(*package, config).images) {
        const size_t last = each.image.height * static_cast<size_t>(each.image.stride_bytes) - 1;
        sum += each.image.data[last] + each.patch_scores[config.patch_count() - 1];
      }
      CHECK(std::isfinite(sum));
      ++accepted;
    } catch (const Error& error) {
      CHECK(error.status() == Status::kPackage);
    }
  }
  CHECK(accepted > 0 && accepted < 2000);  // a mean or a score may well change into another one
}

}  // namespace

int main() {
  a_config_survives_write_and_read();
  a_calibration_survives_and_counts_p_values();
  what_a_calibration_promises_survives();
  an_uncalibrated_package_has_infinite_thresholds();
  a_parity_record_survives_with_its_pixels_unpadded();
  each_config_field_is_checked();
  each_calibration_field_is_checked();
  each_parity_field_is_checked();
  a_newer_minor_version_is_not_called_damaged();
  bytes_behind_a_known_record_are_ignored_in_newer_packages_only();
  the_sizes_of_newer_records_are_bounded();
  the_writers_refuse_what_the_readers_would();
  forged_members_never_crash();
  return check::summary("package_members");
}
