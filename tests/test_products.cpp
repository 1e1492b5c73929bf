// Several products on one network: their members, their gates, and sessions that tell them apart.
#include "package/products.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "product_package.h"

using namespace onceover;
using host_package::dark;
using host_package::two_products;

namespace {

std::shared_ptr<const Package> view(const std::vector<uint8_t>& file) {
  return Package::view(file.data(), file.size(), "two");
}

void test_the_gate_chooses_the_product_in_view() {
  const std::vector<uint8_t> file = two_products();
  Session session(view(file), host_package::session_options());
  CHECK(session.product_count() == 2 && session.selected() == kAutomatic);
  CHECK(session.product(1).name() == "dark" && session.product(1).number() == 1);
  const Result bright = session.run(host_package::image(100).view);
  CHECK(bright.product == 0 && bright.gate_ratio < 1 && bright.decision == Decision::kNormal);
  const Result other = session.run(dark(57).view);
  CHECK(other.product == 1 && other.gate_ratio < 1 && other.decision != Decision::kWrongPart);
  CHECK(session.roi().whole() == false);
  CHECK(session.self_test().images == 6);
  CHECK(session.selected() == kAutomatic);
}

void test_none_of_them_is_a_wrong_part_without_regions() {
  const std::vector<uint8_t> file = two_products();
  Session session(view(file), host_package::session_options());
  const std::vector<uint8_t> white(40 * 56 * 3, 255);
  const ImageView image{white.data(), 40, 56, 56 * 3, PixelFormat::kRgb8};
  const Result result = session.run(image);
  CHECK(result.decision == Decision::kWrongPart && result.gate_ratio > 1);
  CHECK(std::string(name_of(result.decision)) == "wrong_part");
  MapRegion regions[4];
  CHECK(session.find_regions(session.map(), regions, 4) == 0);
  session.select(0);
  const Result named = session.run(image);
  CHECK(named.product == 0 && named.gate_ratio == 0 && named.decision == Decision::kAnomalous);
}

void test_a_named_product_is_judged_by_its_own_thresholds() {
  const std::vector<uint8_t> file = two_products();
  Session session(view(file), host_package::session_options());
  CHECK_THROWS(session.set_threshold(1), Status::kUsage, "a threshold belongs to one of 2 products");
  CHECK_THROWS(session.select(2), Status::kUsage, "product number 2, expected 0 to 1");
  session.select(1);
  session.set_threshold(1e9f);
  CHECK(session.run(host_package::image(57, true).view).decision == Decision::kNormal);
  session.select(0);
  CHECK(session.run(host_package::image(57, true).view).decision == Decision::kAnomalous);
  session.select(1);
  CHECK_THROWS(session.patch_scores(), Status::kUsage, "call run first");
}

void test_a_self_test_leaves_the_selected_product() {
  const std::vector<uint8_t> file = two_products();
  Session session(view(file), host_package::session_options());
  session.select(0);
  session.self_test();
  session.set_threshold(1e9f);  // of the product that is selected, not of the last one that was replayed
  CHECK(session.threshold() == 1e9f && session.product(0).threshold() == 1e9f);
  CHECK(session.product(1).threshold() < 1e9f);
  CHECK(session.run(host_package::image(57, true).view).decision == Decision::kNormal);
}

void test_a_required_member_of_no_product_is_refused() {
  for (const char* name : {"memory_bank.2", "roi.7", "config.1", "products.1"}) {
    const std::vector<uint8_t> file = two_products(true, name);
    CHECK_THROWS(Session(view(file), host_package::session_options()), Status::kPackage, name);
  }
}

void test_a_product_without_a_gate_has_to_be_named() {
  const std::vector<uint8_t> file = two_products(false);
  Session session(view(file), host_package::session_options());
  CHECK_THROWS(session.run(host_package::image(57).view), Status::kUsage, "product 'dark' has no gate");
  CHECK_THROWS(session.select(kAutomatic), Status::kUsage, "product 'dark' has no gate");
  session.select(1);
  CHECK(session.run(host_package::image(57).view).product == 1);
}

// By hand: the mean is 0, one axis along (3, 4) / 5 with inverse variance 4, all else 0.25.
void test_the_distance_of_a_gate() {
  const float mean[2] = {1, 1}, weights[1] = {4}, axes[2] = {0.6f, 0.8f};
  GateModel gate;
  gate.dims = 2;
  gate.rank = 1;
  gate.threshold = 1;
  gate.isotropic = 0.25f;
  gate.mean = mean;
  gate.weights = weights;
  gate.axes = axes;
  const float along[2] = {4, 5}, across[2] = {5, -2};
  CHECK(std::fabs(gate.distance(along) - 10) < 1e-5);  // 5 along the axis
  CHECK(std::fabs(gate.distance(across) - 2.5) < 1e-5);
  gate.threshold = 0;
  CHECK_THROWS(write_gate(gate), Status::kUsage, "'threshold' is 0, expected a positive number");
  gate.threshold = 1;
  gate.rank = 3;
  CHECK_THROWS(write_gate(gate), Status::kUsage, "'rank' is 3, expected 0 to 2");
}

void test_names_without_a_meaning_are_refused() {
  CHECK_THROWS(write_products({"a"}), Status::kUsage, "'product_count' is 1, expected 2 to 32");
  CHECK_THROWS(write_products(std::vector<std::string>(33, "a")), Status::kUsage, "is 33, expected 2 to 32");
  CHECK_THROWS(write_products({"a", ""}), Status::kUsage, "'name[1]' is 0 bytes long");
  CHECK_THROWS(write_products({"a", std::string(48, 'b')}), Status::kUsage, "'name[1]' is 48 bytes long");
  CHECK_THROWS(write_products({"a", "a"}), Status::kUsage, "'name[1]' is 'a', expected another one");
  CHECK_THROWS(write_products({"a", "b\n"}), Status::kUsage, "control character");
  CHECK(is_known_member("memory_bank.31") && is_known_member("graph.onnx") && !is_known_member("memory_bank.0"));
  CHECK(!is_known_member("memory_bank.100") && !is_known_member("memory_bank.") && !is_known_member("unknown.1"));
}

}  // namespace

int main() {
  test_the_gate_chooses_the_product_in_view();
  test_none_of_them_is_a_wrong_part_without_regions();
  test_a_named_product_is_judged_by_its_own_thresholds();
  test_a_self_test_leaves_the_selected_product();
  test_a_required_member_of_no_product_is_refused();
  test_a_product_without_a_gate_has_to_be_named();
  test_the_distance_of_a_gate();
  test_names_without_a_meaning_are_refused();
  return check::summary("test_products");
}
