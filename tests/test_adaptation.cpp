// Sessions whose product has a linear map behind the network: what is searched, what the gate sees, bad members.
#include "session/adaptation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "product_package.h"

using namespace onceover;

namespace {

constexpr size_t kValues = HOST_DIM * HOST_DIM;

std::vector<float> some_matrix() {
  std::vector<float> matrix(kValues);
  for (size_t i = 0; i < kValues; ++i) {
    matrix[i] = static_cast<float>(i * 7 % 13) * 0.03125f + (i % (HOST_DIM + 1) == 0 ? 1.0f : 0.0f);
  }
  return matrix;
}

std::shared_ptr<const Package> adapted_package(std::vector<float> matrix, Tiling tiling = {}) {
  static std::vector<std::vector<uint8_t>> files;  // packages view them
  files.push_back(host_package::bytes({true, true, tiling, {}, std::move(matrix)}));
  return Package::view(files.back().data(), files.back().size(), "adapted");
}

std::vector<float> multiplied(MatrixView<const float> rows, const std::vector<float>& matrix) {
  std::vector<float> out(rows.rows * HOST_DIM);
  for (size_t r = 0; r < rows.rows; ++r) {
    for (size_t d = 0; d < HOST_DIM; ++d) {
      for (size_t k = 0; k < HOST_DIM; ++k) {
        const volatile float product = rows.row(r)[k] * matrix[k * HOST_DIM + d];
        out[r * HOST_DIM + d] += product;
      }
    }
  }
  return out;
}

void test_patches_are_compared_behind_the_map() {
  const std::vector<float> matrix = some_matrix();
  const auto package = adapted_package(matrix);
  const host_package::Image image = host_package::image(57, true);
  std::vector<float> input(3 * HOST_HEIGHT * HOST_WIDTH), features(HOST_PATCHES * HOST_DIM);
  Session session(package, host_package::session_options());
  session.prepare(image.view, input.data());
  CHECK(host_network(nullptr, input.data(), features.data()) == 0);
  const std::vector<float> expected = multiplied({features.data(), HOST_PATCHES, HOST_DIM}, matrix);
  const MemberView& bank = package->require("memory_bank");
  for (const int threads : {1, 3}) {
    SessionOptions options = host_package::session_options();
    options.engine.threads = threads;
    Session threaded(package, options);
    threaded.run(image.view);
    const std::vector<float> scores(threaded.patch_scores(), threaded.patch_scores() + HOST_PATCHES);
    CHECK(std::equal(expected.begin(), expected.end(), threaded.embeddings().data));
    for (size_t patch = 0; patch < HOST_PATCHES; ++patch) {
      double nearest = std::numeric_limits<double>::infinity();
      for (size_t row = 0; row < bank.dimensions[0]; ++row) {
        double squared = 0;
        for (size_t d = 0; d < HOST_DIM; ++d) {
          const double difference =
              double{expected[patch * HOST_DIM + d]} - double{bank.as<float>(2)[row * HOST_DIM + d]};
          squared += difference * difference;
        }
        nearest = std::min(nearest, squared);
      }
      CHECK(std::fabs(double{scores[patch]} - std::sqrt(nearest)) <= 1e-6 * std::sqrt(nearest));
    }
    threaded.run_features({features.data(), HOST_PATCHES, HOST_DIM});  // the network's answer, too, is adapted
    CHECK(std::equal(scores.begin(), scores.end(), threaded.patch_scores()));
    CHECK(threaded.self_test().images == 3);
  }
}

void test_a_part_of_the_bank_scores_zero_and_tiles_are_adapted_one_by_one() {
  Session session(adapted_package(some_matrix(), {2, 2, 1, 1}), host_package::session_options());
  CHECK(session.run(host_package::image(3).view).score == 0);
  CHECK(session.embeddings().rows == 4 * HOST_PATCHES);
  CHECK(session.run(host_package::image(100, true).view).score > 0);
  CHECK(session.self_test().images == 3);
}

void test_the_gate_sees_the_network_and_each_product_has_its_own_map() {
  const std::vector<float> matrix = some_matrix();
  const std::vector<uint8_t> files[] = {host_package::two_products(),
                                        host_package::two_products(true, nullptr, matrix)};
  Session plain(Package::view(files[0].data(), files[0].size(), "plain"), host_package::session_options());
  Session adapted(Package::view(files[1].data(), files[1].size(), "adapted"), host_package::session_options());
  CHECK(plain.product(0).adaptation().none() && adapted.product(0).adaptation().none());
  CHECK(!adapted.product(1).adaptation().none());
  for (const auto& image : {host_package::image(100), host_package::dark(57)}) {
    const Result expected = plain.run(image.view), got = adapted.run(image.view);
    CHECK(got.product == expected.product && got.gate_ratio == expected.gate_ratio);
    CHECK((got.score == expected.score) == (got.product == 0));
  }
  CHECK(adapted.self_test().images == 6);
}

void test_bad_members_are_refused() {
  std::vector<float> matrix = some_matrix();
  std::vector<float> damaged = matrix;
  const auto bytes = [](const std::vector<float>& values) { return host_package::two_products(true, nullptr, values); };
  const auto open = [](const std::vector<uint8_t>& file) {
    return Session(Package::view(file.data(), file.size(), "bad"), host_package::session_options());
  };
  damaged[17] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<uint8_t> not_a_number = bytes(damaged);
  CHECK_THROWS(open(not_a_number), Status::kPackage, "member 'adaptation.1' holds a NaN or infinity");
  matrix.resize(kValues - HOST_DIM);
  const std::vector<uint8_t> too_small = bytes(matrix);
  CHECK_THROWS(open(too_small), Status::kPackage,
               "member 'adaptation.1' is 15 x 16, the patch embedding has 16 values");
}

void test_packages_without_one_stay_of_the_first_version() {
  CHECK(host_package::minor_version(host_package::bytes()) == 0);
  CHECK(host_package::minor_version(host_package::bytes({true, true, {}, {}, some_matrix()})) == 1);
}

}  // namespace

int main() {
  test_patches_are_compared_behind_the_map();
  test_a_part_of_the_bank_scores_zero_and_tiles_are_adapted_one_by_one();
  test_the_gate_sees_the_network_and_each_product_has_its_own_map();
  test_bad_members_are_refused();
  test_packages_without_one_stay_of_the_first_version();
  return check::summary("adaptation");
}
