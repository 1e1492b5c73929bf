#include "compaction/compact.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"
#include "compaction/provenance.h"
#include "engines/onnx_content.h"
#include "package/writer.h"

namespace onceover {
namespace {

bool exists(const std::string& path, struct stat& found) { return ::stat(path.c_str(), &found) == 0; }

bool same_file(const std::string& a, const std::string& b) {
  struct stat one{}, other{};
  return exists(a, one) && exists(b, other) && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

void check_output(const Corrections& corrections, const std::string& output) {
  const std::string journal = output + ".journal";
  struct stat found{};
  const char* wrong = same_file(output, corrections.package().label()) ? "is the package itself, to which the journal "
                                                                         "belongs; give another name"
                      : same_file(output, corrections.path())          ? "is the journal; give another name"
                                                                       : nullptr;
  if (wrong != nullptr) fail(Status::kUsage, "%s: %s", output.c_str(), wrong);
  if (exists(journal, found)) {
    fail(Status::kUsage,
         "%s: lies where the journal of the new package would, and is of another one; give another name, or move it",
         journal.c_str());
  }
}

void check_source(const Package& package) {
  package.check_members();  // what is damaged must not get a hash that says it is whole
  const MemberView& graph = package.require("graph.onnx");
  if (inspect_onnx(graph.data, static_cast<size_t>(graph.size_bytes)) == OnnxContent::kExternalData) {
    fail(Status::kInput, "%s: its graph keeps weights in a file beside it, which a package cannot carry; fit again",
         package.label().c_str());
  }
}

// What a session answers for the reference images.
std::vector<uint8_t> parity_of(Session& session, const CompactProgress& progress) {
  Parity parity = read_parity(session.package(), session.config());
  if (parity.images.empty()) {
    fail(Status::kVerification,
         "%s: the parity record has no reference images, so nothing would prove the new package; fit it again",
         session.package().label().c_str());
  }
  const Config& config = session.config();
  std::vector<std::vector<float>> scores, maps;
  std::vector<float> pixels(config.map_height() * config.map_width());
  const MatrixView<float> map(pixels.data(), config.map_height(), config.map_width());
  for (ParityImage& each : parity.images) {
    const Result& result = session.run(each.image);
    each.score = result.score;
    each.verdict = static_cast<uint32_t>(result.decision);
    scores.emplace_back(session.patch_scores(), session.patch_scores() + config.cell_count());
    session.draw_map(map);
    std::vector<float>& kept = maps.emplace_back();
    for (size_t y = 0; y < map.rows; y += parity.map_step) {
      for (size_t x = 0; x < map.columns; x += parity.map_step) kept.push_back(map.row(y)[x]);
    }
    each.patch_scores = scores.back().data();
    each.map = kept.data();
    progress("reference images", scores.size(), parity.images.size());
  }
  return write_parity(parity, config);
}

std::vector<uint8_t> calibration_of(const Calibration& from) {
  return write_calibration(from.calibrated, from.false_alarm_rate, from.threshold, from.map_threshold,
                           {from.scores, from.scores + from.n}, {from.map_maxima, from.map_maxima + from.n},
                           from.image_count, {from.cross_conformal, from.confidence});
}

// The members that are computed anew; the others are the package's.
struct Members {
  std::vector<uint8_t> config, calibration, parity, patches;
  std::vector<uint32_t> neighbors;
  size_t neighbor_count = 0;  // k
  Provenance provenance;
};

void copy_member(PackageWriter& writer, const MemberView& member) {
  const std::vector<uint64_t> dimensions(member.dimensions.begin(), member.dimensions.begin() + member.dimension_count);
  writer.add(std::string(member.name), member.data, static_cast<size_t>(member.size_bytes), member.type, dimensions,
             member.required);
}

// What a reader must know decides, so that none of it is left behind: region of interest, adaptation and what is to
// come. Of the optional ones, those that do not depend on rows: gates are of images as a whole, thumbnails of the
// bank's images.
bool is_kept(const MemberView& member) {
  for (const std::string_view made : {"config", "manifest.json", "memory_bank", "bank_index", "bank_neighbors",
                                      "calibration", "parity", "calibration_patches", "bank_source"}) {
    if (member.name == made) return false;
  }
  return member.required || member.name == "gate" || member.name == "thumbnails";
}

// Views the members, the bank and the package.
PackageWriter writer_of(const Package& package, const CompactedBank& bank, const Members& members) {
  PackageWriter writer;
  const auto add = [&writer](const char* name, const std::vector<uint8_t>& bytes) {
    writer.add(name, bytes.data(), bytes.size(), DataType::kBytes, {}, true);
  };
  const auto add_optional = [&writer](const char* name, const std::vector<uint32_t>& values, size_t columns) {
    if (values.empty()) return;
    writer.add(name, values.data(), values.size() * 4, DataType::kUint32, {values.size() / columns, columns}, false);
  };
  const MatrixView<const float> rows = bank.rows();
  const std::string& manifest = members.provenance.manifest;
  const MemberView* stored = package.find("manifest.json");
  add("config", members.config);
  writer.add("manifest.json", manifest.data(), manifest.size(), DataType::kBytes, {},
             stored != nullptr && stored->required);
  writer.add("memory_bank", rows.data, rows.rows * rows.columns * sizeof(float), DataType::kFloat32,
             {rows.rows, rows.columns}, true);
  writer.add("bank_index", bank.bank().index_data(), bank.bank().index_size(), DataType::kUint8, {}, false);
  add_optional("bank_neighbors", members.neighbors, members.neighbor_count);
  add("calibration", members.calibration);
  add("parity", members.parity);
  if (!members.patches.empty()) {
    writer.add("calibration_patches", members.patches.data(), members.patches.size(), DataType::kUint8, {}, false);
  }
  add_optional("bank_source", members.provenance.source, 2);
  for (const MemberView& member : package.members()) {
    if (is_kept(member)) copy_member(writer, member);
  }
  return writer;
}

// Columns of the member "bank_neighbors"; 0 where the package has none.
size_t neighbor_count(const Package& package, const CompactedBank& bank) {
  const MemberView* member = package.find("bank_neighbors");
  if (member == nullptr) return 0;
  member->as<uint32_t>(2);  // refuses another type or rank
  return std::min<size_t>({static_cast<size_t>(member->dimensions[1]), kMaxNeighbors, bank.rows().rows});
}

// Reads a written file back and replays it. `output` names it in messages.
Digest proven(const std::string& path, const std::string& output, const CompactOptions& options) {
  options.progress("verifying", 0, 1);
  try {
    const std::shared_ptr<const Package> made = Package::open(path);
    const Config config = read_config(*made);
    const auto rows = static_cast<size_t>(made->require("memory_bank").dimensions[0]);
    read_calibration_patches(*made, config, read_calibration(*made), rows);
    options.open_session(made)->self_test();
    options.progress("verifying", 1, 1);
    return made->id();
  } catch (const Error& error) {
    if (error.status() == Status::kCancelled) throw;
    fail(error.status(), "%s: was not written, because it did not pass its own verification: %s", output.c_str(),
         error.what());
  }
}

}  // namespace

Digest compact(const Corrections& corrections, const std::string& output, const CompactOptions& options) {
  const Package& package = corrections.package();
  const Config config = read_config(package);
  const BankChanges& changes = corrections.changes(0);
  if (changes.removed.empty() && changes.numbers.empty()) {
    fail(Status::kUsage, "%s: nothing is confirmed or removed, so there is nothing to compact",
         corrections.path().c_str());
  }
  check_output(corrections, output);
  check_source(package);

  Members members;
  CalibrationState state;
  size_t threads;
  {
    const std::unique_ptr<Session> session = options.open_session(corrections.shared_package());
    session->apply(changes, corrections.max_added_rows());
    state = session->applied().state;
    threads = session->threads();
    members.calibration = calibration_of(session->calibration());
    members.parity = parity_of(*session, options.progress);
  }
  const CompactedBank bank(package, config, changes, options.progress);
  members.config = write_config(config);
  members.neighbor_count = neighbor_count(package, bank);
  if (members.neighbor_count > 0) members.neighbors = bank.neighbors(members.neighbor_count, threads, options.progress);
  members.provenance = provenance_of(corrections, bank, state);
  const auto old = read_calibration_patches(package, config, read_calibration(package), bank.fitted().rows);
  if (old) members.patches = compacted_patches(*old, config, bank, changes, package);

  Digest id{};
  writer_of(package, bank, members).save(output, [&](const std::string& path) { id = proven(path, output, options); });
  return id;
}

}  // namespace onceover
