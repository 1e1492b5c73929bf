#include "compaction/compact.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"
#include "compaction/provenance.h"
#include "engines/onnx_content.h"
#include "package/products.h"
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

// What a session answers for the reference images of a product.
std::vector<uint8_t> parity_of(Session& session, uint32_t product, const CompactProgress& progress) {
  session.select(product);
  Parity parity = read_parity(session.package(), session.config(), product);
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

// The members of a corrected product that are computed anew; the others are the package's.
struct NewMembers {
  explicit NewMembers(uint32_t number) : product(number) {}

  uint32_t product;
  CalibrationState state = CalibrationState::kFitted;
  std::vector<uint8_t> calibration, parity, patches;
  std::unique_ptr<CompactedBank> bank;
  std::vector<uint32_t> neighbors, source;
  size_t neighbor_count = 0;  // k
};

void copy_member(PackageWriter& writer, const MemberView& member) {
  const std::vector<uint64_t> dimensions(member.dimensions.begin(), member.dimensions.begin() + member.dimension_count);
  writer.add(std::string(member.name), member.data, static_cast<size_t>(member.size_bytes), member.type, dimensions,
             member.required);
}

// What a reader must know decides, so that none of it is left behind: region of interest, adaptation and what is to
// come. Of the optional ones, those that do not depend on rows (gates are of images as a whole, thumbnails of the
// bank's images), and, of products whose rows stay as they are, those that do and that this version knows.
bool is_kept(const MemberView& member, const std::vector<NewMembers>& made, uint32_t product_count) {
  for (uint32_t product = 0; product < product_count; ++product) {
    const auto is = [&](std::string_view name) { return member.name == member_name(name, product); };
    if (is("gate") || is("thumbnails")) return true;
    const bool is_made =
        std::any_of(made.begin(), made.end(), [&](const NewMembers& each) { return each.product == product; });
    for (const std::string_view name : {"memory_bank", "bank_index", "bank_neighbors", "calibration", "parity",
                                        "calibration_patches", "bank_source"}) {
      if (is(name)) return !is_made;
    }
  }
  return member.required && member.name != "config" && member.name != "manifest.json";
}

void add_required(PackageWriter& writer, const std::string& name, const std::vector<uint8_t>& bytes) {
  writer.add(name, bytes.data(), bytes.size(), DataType::kBytes, {}, true);
}

// Views what it is given.
void add_members(PackageWriter& writer, const NewMembers& members) {
  const auto name = [&](const char* base) { return member_name(base, members.product); };
  const auto add_optional = [&](const char* base, const std::vector<uint32_t>& values, size_t columns) {
    if (values.empty()) return;
    writer.add(name(base), values.data(), values.size() * 4, DataType::kUint32, {values.size() / columns, columns},
               false);
  };
  const MatrixView<const float> rows = members.bank->rows();
  const MemoryBank& bank = members.bank->bank();
  writer.add(name("memory_bank"), rows.data, rows.rows * rows.columns * sizeof(float), DataType::kFloat32,
             {rows.rows, rows.columns}, true);
  writer.add(name("bank_index"), bank.index_data(), bank.index_size(), DataType::kUint8, {}, false);
  add_optional("bank_neighbors", members.neighbors, members.neighbor_count);
  add_required(writer, name("calibration"), members.calibration);
  add_required(writer, name("parity"), members.parity);
  if (!members.patches.empty()) {
    writer.add(name("calibration_patches"), members.patches.data(), members.patches.size(), DataType::kUint8, {},
               false);
  }
  add_optional("bank_source", members.source, 2);
}

// Columns of the member "bank_neighbors"; 0 where the package has none.
size_t neighbor_count(const Package& package, const CompactedBank& bank) {
  const MemberView* member = package.find(member_name("bank_neighbors", bank.product()));
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
    for (uint32_t product = 0; product < read_products(*made).size(); ++product) {
      const auto rows = static_cast<size_t>(made->require(member_name("memory_bank", product)).dimensions[0]);
      read_calibration_patches(*made, config, read_calibration(*made, product), rows, product);
    }
    options.open_session(made)->self_test();
    options.progress("verifying", 1, 1);
    return made->id();
  } catch (const Error& error) {
    if (error.status() == Status::kCancelled) throw;
    fail(error.status(), "%s: was not written, because it did not pass its own verification: %s", output.c_str(),
         error.what());
  }
}

// What a session with the corrections says; threads: its own.
void ask_session(std::vector<NewMembers>& made, const Corrections& corrections, const CompactOptions& options,
                 size_t& threads) {
  const std::unique_ptr<Session> session = options.open_session(corrections.shared_package());
  session->apply(corrections.changes(), corrections.max_added_rows());
  threads = session->threads();
  for (NewMembers& each : made) {
    const Product& product = session->product(each.product);
    each.state = product.applied().state;
    each.calibration = calibration_of(product.calibration());
    each.parity = parity_of(*session, each.product, options.progress);
  }
}

}  // namespace

Digest compact(const Corrections& corrections, const std::string& output, const CompactOptions& options) {
  const Package& package = corrections.package();
  const Config config = read_config(package);
  std::vector<NewMembers> made;
  for (uint32_t product = 0; product < corrections.product_count(); ++product) {
    if (!corrections.changes(product).none()) made.emplace_back(product);
  }
  if (made.empty()) {
    fail(Status::kUsage, "%s: nothing is confirmed or removed, so there is nothing to compact",
         corrections.path().c_str());
  }
  check_output(corrections, output);
  check_source(package);

  size_t threads = 1;
  ask_session(made, corrections, options, threads);
  JsonText manifest = manifest_of(corrections);
  for (NewMembers& each : made) {
    const BankChanges& changes = corrections.changes(each.product);
    each.bank = std::make_unique<CompactedBank>(package, config, each.product, changes, options.progress);
    each.neighbor_count = neighbor_count(package, *each.bank);
    if (each.neighbor_count > 0) each.neighbors = each.bank->neighbors(each.neighbor_count, threads, options.progress);
    each.source = add_provenance(manifest, corrections, *each.bank, each.state);
    const auto old = read_calibration_patches(package, config, read_calibration(package, each.product),
                                              each.bank->fitted().rows, each.product);
    if (old) each.patches = compacted_patches(*old, config, *each.bank, changes, package);
  }

  PackageWriter writer;
  const std::vector<uint8_t> config_bytes = write_config(config);
  const MemberView* stored = package.find("manifest.json");
  add_required(writer, "config", config_bytes);
  writer.add("manifest.json", manifest.text().data(), manifest.text().size(), DataType::kBytes, {},
             stored != nullptr && stored->required);
  for (const NewMembers& each : made) add_members(writer, each);
  for (const MemberView& member : package.members()) {
    if (is_kept(member, made, corrections.product_count())) copy_member(writer, member);
  }
  Digest id{};
  writer.save(output, [&](const std::string& path) { id = proven(path, output, options); });
  return id;
}

}  // namespace onceover
