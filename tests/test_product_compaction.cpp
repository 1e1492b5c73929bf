// A package of several products and its journal → a new package of them all: the corrected ones are, byte for byte,
// what compacting each of their own packages makes, the others stay as they are, and all decide as before.
#include <algorithm>
#include <cstdlib>

#include "compaction/json_text.h"
#include "compaction_check.h"

using namespace compaction_check;
using host_package::dark;

namespace {

JsonText manifest_in(const Package& package) {
  const MemberView& member = package.require("manifest.json");
  return {std::string(reinterpret_cast<const char*>(member.data), member.size_bytes), "manifest"};
}

std::string text_of(const Digest& id) { return "\"" + hex(id) + "\""; }

// Members of one product, numbered or not, and those of another package are the same, byte for byte.
void check_same_members(const Package& expected, uint32_t expected_product, const Package& got, uint32_t product) {
  for (const char* name : {"memory_bank", "bank_index", "bank_neighbors", "bank_source", "calibration", "parity",
                           "calibration_patches", "thumbnails", "roi", "adaptation", "position_weights"}) {
    const MemberView* old = expected.find(member_name(name, expected_product));
    const MemberView* now = got.find(member_name(name, product));
    CHECK((old == nullptr) == (now == nullptr));
    if (old == nullptr || now == nullptr) continue;
    CHECK(now->sha256 == old->sha256 && now->type == old->type && now->required == old->required);
    CHECK(now->dimension_count == old->dimension_count && now->dimensions == old->dimensions);
  }
}

// The same decisions, bit for bit, of each product that is named and of the one that the gates find.
void check_same_decisions(const Corrections& corrections, const std::string& path) {
  const auto before = opened(corrections.shared_package()), after = opened(Package::open(path));
  before->apply(corrections.changes(), corrections.max_added_rows());
  const Config& config = before->config();
  const size_t cells = config.cell_count(), pixels = config.map_height() * config.map_width();
  for (const uint32_t selected : {0u, 1u, kAutomatic}) {
    before->select(selected);
    after->select(selected);
    if (selected != kAutomatic) {
      const Calibration &old = before->calibration(), &now = after->calibration();
      CHECK(now.calibrated == old.calibrated && now.n == old.n && now.image_count == old.image_count);
      CHECK(now.threshold == old.threshold && now.map_threshold == old.map_threshold);
      CHECK(std::equal(now.scores, now.scores + now.n, old.scores));
      CHECK(std::equal(now.map_maxima, now.map_maxima + now.n, old.map_maxima));
      CHECK(after->bank_rows() == before->bank_rows());
    }
    for (uint32_t seed = 300; seed < 318; ++seed) {
      const host_package::Image image = seed % 3 == 0   ? false_alarm(seed)
                                        : seed % 3 == 1 ? host_package::image(seed)
                                                        : dark(seed);
      const Result a = before->run(image.view), b = after->run(image.view);
      CHECK(b.score == a.score && b.decision == a.decision && b.p_value == a.p_value && b.product == a.product);
      CHECK(b.map_maximum == a.map_maximum && b.worst_patch == a.worst_patch && b.gate_ratio == a.gate_ratio);
      CHECK(std::equal(before->patch_scores(), before->patch_scores() + cells, after->patch_scores()));
      CHECK(std::equal(before->map().data, before->map().data + pixels, after->map().data));
    }
  }
  CHECK(after->self_test().images == 6);
}

void test_each_product_becomes_what_compacting_its_own_package_makes(const TwoProducts& bytes) {
  Corrections together = journal_of(fitted(bytes.together), "together.journal");
  const std::string path = path_of("together.onceover");
  for (const uint32_t number : {1u, 0u}) {
    Corrections alone = journal_of(fitted(bytes.alone[number]), "alone.journal");
    correct(alone, 0, 300 + number);
    correct(together, number, 300 + number);
    compact(alone, path_of("alone.onceover"), options());
    const Digest id = compact(together, path, options());
    const auto made = Package::open(path), own = Package::open(path_of("alone.onceover"));
    check_same_members(*own, 0, *made, number);
    if (number == 1) check_same_members(together.package(), 0, *made, 0);  // nothing was corrected of it
    CHECK(made->id() == id && id != together.package().id());
    for (const char* kept : {"graph.onnx", "config", "products", "gate", "gate.1", "thumbnails", "thumbnails.1"}) {
      CHECK(made->require(kept).sha256 == together.package().require(kept).sha256);
    }
    CHECK(made->find("of_the_future") == nullptr && made->find("of_the_future.1") == nullptr);
    const std::vector<uint8_t> file = read_file(path);
    CHECK(compact(together, path, options()) == id && read_file(path) == file);
    check_same_decisions(together, path);
    const std::string said = std::to_string(number);
    const JsonText manifest = manifest_in(*made), of_own = manifest_in(*own);
    CHECK(manifest.find({"products", said, "data"}) == of_own.find({"data"}));
    CHECK(manifest.find({"products", said, "detector"}) == of_own.find({"detector"}));
  }
  CHECK(Corrections(Package::open(path), path + ".journal").state().records == 0);
}

void test_the_manifest_tells_of_each_product_where_it_came_from() {
  Corrections corrections = journal_of(fitted(two_products().together), "told.journal");
  const std::string path = path_of("told.onceover"), second = path_of("second.onceover");
  confirm_alarm(corrections, 300, "one.png", 1);
  confirm_alarm(corrections, 302, "two.png", 1);
  compact(corrections, path, options());
  const auto package = Package::open(path);
  const JsonText manifest = manifest_in(*package);
  CHECK(manifest.find({"name"}) == "\"bright + dark\"" && !manifest.find({"compacted"}));
  CHECK(manifest.find({"products", "0"}) == manifest_in(corrections.package()).find({"products", "0"}));
  CHECK(manifest.find({"products", "1", "compacted", "from"}) == text_of(corrections.package().id()));
  CHECK(manifest.find({"products", "1", "compacted", "journal"}) == text_of(corrections.state().head));
  CHECK(manifest.find({"products", "1", "compacted", "candidates"}) == "[1, 3]");
  CHECK(manifest.count({"products", "1", "data", "bank_images"}) == 42u);
  const std::string names(*manifest.find({"products", "1", "data", "bank_images"}));
  CHECK(names.find("\"one.png\", \"two.png\"]") != std::string::npos);

  Corrections again = journal_of(package, "again.journal");
  confirm_alarm(again, 304, "three.png", 0);
  again.remove(1, {3}, "", 0);
  compact(again, second, options());
  check_same_decisions(again, second);
  const JsonText twice = manifest_in(*Package::open(second));
  CHECK(!twice.find({"products", "0", "compacted_before"}) && twice.count({"products", "1", "compacted_before"}) == 1u);
  CHECK(twice.find({"products", "1", "compacted_before", "0", "from"}) == text_of(corrections.package().id()));
  for (const char* product : {"0", "1"}) {
    CHECK(twice.find({"products", product, "compacted", "from"}) == text_of(package->id()));
  }
  CHECK(twice.find({"products", "0", "compacted", "candidates"}) == "[1]");
  CHECK(twice.find({"products", "1", "compacted", "candidates"}) == "[]");
  CHECK(twice.find({"products", "1", "compacted", "removed_rows"}) == "1");
}

void test_a_manifest_that_lists_other_products_is_refused_and_one_that_lists_none_is_completed() {
  const TwoProducts& bytes = two_products();
  const auto compacted = [&](const std::string& manifest) {
    const std::vector<uint8_t> file = host_package::combined(bytes.alone[0], bytes.alone[1], manifest);
    Corrections corrections = journal_of(fitted(file), "listed.journal");
    corrections.remove(1, {5}, "", 0);
    compact(corrections, path_of("listed.onceover"), options());
    return manifest_in(*Package::open(path_of("listed.onceover")));
  };
  for (const char* wrong : {"[]", "[{}]", "[{}, {}, {}]", "[{}, 1]", "{}", "null"}) {
    CHECK_THROWS(compacted(std::string("{\"products\": ") + wrong + "}"), Status::kPackage,
                 "its 'products' are not one object for each of 2 products");
  }
  const JsonText made = compacted("{\"by\": \"hand\"}");
  CHECK(made.find({"by"}) == "\"hand\"" && made.find({"products", "0"}) == "{\"name\": \"bright\"}");
  CHECK(made.find({"products", "1", "name"}) == "\"dark\"");
  CHECK(made.find({"products", "1", "compacted", "removed_rows"}) == "1");
}

void test_damage_of_any_product_is_found_before_the_file_gets_its_name() {
  const std::vector<uint8_t>& whole = two_products().together;
  Corrections nothing = journal_of(fitted(whole), "nothing.journal");
  CHECK_THROWS(compact(nothing, path_of("none.onceover"), options()), Status::kUsage, "nothing to compact");
  for (const char* name : {"bank_source.1", "calibration_patches.1", "bank_neighbors.1", "calibration_patches"}) {
    const std::vector<uint8_t> damaged = host_package::with_members(whole, {{name, {1, 2, 3, 4}}}, {name});
    Corrections corrections = journal_of(fitted(damaged), "damaged.journal");
    corrections.remove(1, {5}, "", 0);
    CHECK_THROWS(compact(corrections, path_of("damaged.onceover"), options()), Status::kPackage, name);
    CHECK(::access(path_of("damaged.onceover").c_str(), F_OK) != 0);
  }
}

void test_products_that_remember_nothing_are_compacted_as_far_as_they_can_be() {
  const std::vector<uint8_t> plain = host_package::bytes({true, false});  // no index, no patches, no provenance
  const std::vector<uint8_t> file = host_package::combined(two_products().alone[0], plain);
  Corrections corrections = journal_of(fitted(file), "plain.journal");
  corrections.remove(1, {3}, "", 0);
  compact(corrections, path_of("plain.onceover"), options());
  const auto made = Package::open(path_of("plain.onceover"));
  CHECK(!read_calibration(*made, 1).calibrated && read_calibration(*made, 0).calibrated);
  CHECK(made->find("bank_source.1") == nullptr && made->find("bank_neighbors.1") == nullptr);
  check_same_members(corrections.package(), 0, *made, 0);
  const auto session = opened(made);
  session->select(1);
  CHECK(session->run(false_alarm(300).view).decision == Decision::kUncalibrated);
  session->select(0);
  CHECK(session->run(false_alarm(300).view).decision == Decision::kAnomalous);
}

void test_a_kill_leaves_the_old_file_or_the_whole_new_one() {
  Corrections corrections = journal_of(fitted(two_products().together), "killed.journal");
  const std::string path = path_of("killed.onceover");
  correct(corrections, 1, 300);
  compact(corrections, path, options());
  correct(corrections, 0, 302);
  size_t reports = 0;
  CompactOptions counting = options();
  counting.progress = [&](const char*, size_t done, size_t total) {
    ++reports;
    CHECK(done <= total && total > 0);
  };
  compact(corrections, path_of("as_killed.onceover"), counting);
  const std::vector<uint8_t> whole = read_file(path_of("as_killed.onceover"));
  const std::vector<std::string> before = files();
  killed_at_every_report(corrections, path, reports);
  compact(corrections, path, options());
  CHECK(read_file(path) == whole && files() == before);
}

}  // namespace

int main() {
  return run("product_compaction", [] {
    test_each_product_becomes_what_compacting_its_own_package_makes(two_products());
    if (std::getenv("ONCEOVER_QEMU") == nullptr) {
      test_each_product_becomes_what_compacting_its_own_package_makes(tiled_products());
    }
    test_the_manifest_tells_of_each_product_where_it_came_from();
    test_a_manifest_that_lists_other_products_is_refused_and_one_that_lists_none_is_completed();
    test_damage_of_any_product_is_found_before_the_file_gets_its_name();
    test_products_that_remember_nothing_are_compacted_as_far_as_they_can_be();
    test_a_kill_leaves_the_old_file_or_the_whole_new_one();
  });
}
