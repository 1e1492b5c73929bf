// Sessions whose product weighs distances by where they are: scores, maps, bad members.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "product_package.h"

using namespace onceover;

namespace {

const Tiling kTiles{2, 2, 1, 1};

// Packages view their bytes.
std::shared_ptr<const Package> package_of(host_package::Kind kind) {
  static std::vector<std::vector<uint8_t>> files;
  files.push_back(host_package::bytes(std::move(kind)));
  return Package::view(files.back().data(), files.back().size(), "weighed");
}

std::vector<float> scores_of(const Session& session) {
  return {session.patch_scores(), session.patch_scores() + session.config().cell_count()};
}

std::vector<float> map_of(Session& session) {
  std::vector<float> map(session.config().map_height() * session.config().map_width());
  session.draw_map({map.data(), session.config().map_height(), session.config().map_width()});
  return map;
}

void test_a_score_is_a_distance_times_the_weight_of_its_cell() {
  std::vector<uint8_t> middle(64, 0);
  std::fill(middle.begin() + 16, middle.begin() + 48, uint8_t{1});
  for (const Tiling& tiling : {Tiling{}, kTiles}) {
    for (const std::vector<uint8_t>& roi : {std::vector<uint8_t>{}, middle}) {
      const std::vector<float> weights = host_package::some_weights(tiling);
      Session plain(package_of({true, true, tiling, roi}), host_package::session_options());
      Session weighed(package_of({true, true, tiling, roi, {}, weights}), host_package::session_options());
      CHECK(plain.product(0).position_weights() == nullptr && weighed.product(0).position_weights() != nullptr);
      for (const auto& image : {host_package::image(57), host_package::image(58, true)}) {
        plain.run(image.view);
        const Result result = weighed.run(image.view);
        const std::vector<float> distances = scores_of(plain), scores = scores_of(weighed);
        CHECK(std::equal(distances.begin(), distances.end(), plain.patch_distances()));
        size_t cells = 0;
        for (size_t cell = 0; cell < scores.size(); ++cell) {
          CHECK(scores[cell] == distances[cell] * weights[cell]);
          if (distances[cell] == 0) continue;  // outside the region, distances mean nothing
          CHECK(weighed.patch_distances()[cell] == distances[cell]);
          ++cells;
        }
        CHECK(cells > 0);
        const auto worst = std::max_element(scores.begin(), scores.end());
        CHECK(result.score == *worst && result.worst_patch == static_cast<uint32_t>(worst - scores.begin()));
        CHECK(map_of(weighed) != map_of(plain));
      }
      CHECK(plain.self_test().images == 3 && weighed.self_test().images == 3);
    }
  }
}

void test_weights_of_one_change_nothing() {
  const std::vector<float> ones(HOST_PATCHES, 1.0f);
  Session plain(package_of({}), host_package::session_options());
  Session weighed(package_of({true, true, {}, {}, {}, ones}), host_package::session_options());
  const host_package::Image image = host_package::image(58, true);
  const Result expected = plain.run(image.view), got = weighed.run(image.view);
  CHECK(got.score == expected.score && got.map_maximum == expected.map_maximum);
  CHECK(scores_of(weighed) == scores_of(plain) && map_of(weighed) == map_of(plain));
}

void test_each_product_has_its_own() {
  const std::vector<uint8_t> files[] = {host_package::two_products(),
                                        host_package::two_products(true, nullptr, {}, host_package::some_weights())};
  Session plain(Package::view(files[0].data(), files[0].size(), "plain"), host_package::session_options());
  Session weighed(Package::view(files[1].data(), files[1].size(), "weighed"), host_package::session_options());
  for (const auto& image : {host_package::image(100), host_package::dark(57), host_package::image(101)}) {
    const Result expected = plain.run(image.view), got = weighed.run(image.view);
    CHECK(got.product == expected.product);
    CHECK((scores_of(weighed) == scores_of(plain)) == (got.product == 0));
    const std::vector<float> distances = scores_of(plain);  // of a product that does not weigh, behind one that does
    CHECK(got.product == 1 || std::equal(distances.begin(), distances.end(), weighed.patch_distances()));
  }
  CHECK(weighed.self_test().images == 6);
}

void test_bad_members_are_refused() {
  const std::vector<uint8_t> whole = host_package::bytes({true, true, {}, {}, {}, host_package::some_weights()});
  const auto package = Package::view(whole.data(), whole.size(), "whole");
  const auto with = [&](std::vector<float> weights, std::vector<uint64_t> dimensions) {
    PackageWriter writer;
    for (const MemberView& member : package->members()) {
      const bool changed = member.name == "position_weights";
      const std::vector<uint64_t> own(member.dimensions.begin(), member.dimensions.begin() + member.dimension_count);
      writer.add(std::string(member.name), changed ? weights.data() : static_cast<const void*>(member.data),
                 changed ? weights.size() * sizeof(float) : static_cast<size_t>(member.size_bytes), member.type,
                 changed ? dimensions : own, true);
    }
    return writer.bytes();
  };
  const auto open = [](const std::vector<uint8_t>& file) {
    return Session(Package::view(file.data(), file.size(), "bad"), host_package::session_options());
  };
  const std::vector<float> good = host_package::some_weights();
  const std::vector<uint8_t> unchanged = with(good, {HOST_ROWS, HOST_COLUMNS});
  CHECK(open(unchanged).self_test().images == 3);
  for (const float bad :
       {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> weights = good;
    weights[5] = bad;
    const std::vector<uint8_t> file = with(weights, {HOST_ROWS, HOST_COLUMNS});
    CHECK_THROWS(open(file), Status::kPackage, "for cell 5, expected a finite weight above 0; fit again");
  }
  const std::vector<uint8_t> turned = with(good, {HOST_COLUMNS, HOST_ROWS});
  CHECK_THROWS(open(turned), Status::kPackage, "member 'position_weights' is");
  const std::vector<uint8_t> flat = with(good, {HOST_PATCHES});
  CHECK_THROWS(open(flat), Status::kPackage, "position_weights");
}

void test_packages_without_one_stay_of_the_first_version() {
  CHECK(host_package::minor_version(host_package::bytes()) == 0);
  CHECK(host_package::minor_version(host_package::bytes({true, true, {}, {}, {}, host_package::some_weights()})) == 1);
}

}  // namespace

int main() {
  test_a_score_is_a_distance_times_the_weight_of_its_cell();
  test_weights_of_one_change_nothing();
  test_each_product_has_its_own();
  test_bad_members_are_refused();
  test_packages_without_one_stay_of_the_first_version();
  return check::summary("position weights");
}
