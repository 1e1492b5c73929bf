// What corrections must refuse of a hostile or damaged package, and of a bound beyond all measure. The rest of the
// calibration after corrections is in test_corrections*.py.
#include <cmath>

#include "check.h"
#include "correctable_package.h"
#include "corrections/corrected_bank.h"

using namespace onceover;

namespace {

void test_held_out_images_that_overflow_are_refused_and_change_nothing() {
  const std::vector<uint8_t> file = host_package::correctable_bytes();
  const auto package = Package::view(file.data(), file.size(), "host");
  const MemberView& member = package->require("calibration_patches");
  std::vector<uint8_t> patches(member.data, member.data + member.size_bytes);
  const float far = 3e38f;  // finite, but not its distance to anything
  for (size_t value = 1; value <= HOST_DIM; ++value) {
    std::memcpy(patches.data() + patches.size() - value * sizeof far, &far, sizeof far);
  }
  const std::vector<uint8_t> hostile =
      host_package::with_members(file, {{"calibration_patches", patches}}, {"calibration_patches"});
  Session session(Package::view(hostile.data(), hostile.size(), "hostile"), host_package::session_options());
  const Result before = session.run(host_package::image(57, true).view);
  BankChanges changes;
  changes.removed = {0};
  CHECK_THROWS(session.apply({changes}, 4), Status::kPackage, "held-out image 18 has no finite score");
  const Result after = session.run(host_package::image(57, true).view);
  CHECK(std::isfinite(after.threshold) && after.threshold == before.threshold && after.score == before.score);
  CHECK(after.decision == Decision::kAnomalous);
}

void test_a_bank_without_rows_calibrates_nothing() {
  const std::vector<uint8_t> file = host_package::correctable_bytes();
  Session session(Package::view(file.data(), file.size(), "host"), host_package::session_options());
  BankChanges changes;
  const auto rows = Package::view(file.data(), file.size(), "host")->require("memory_bank").dimensions[0];
  for (uint32_t row = 0; row < rows; ++row) changes.removed.push_back(row);
  CHECK_THROWS(session.apply({changes}, 0), Status::kPackage, "leave it more rows of the memory bank");
}

void test_a_bound_beyond_the_slots_of_an_index_is_refused() {  // before any memory is taken for it
  std::vector<float> rows(200 * HOST_DIM);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * i % 1013);
  for (const Representation representation : {Representation::kFull, Representation::kScan}) {
    BuildOptions options;
    options.forced = true;
    options.representation = representation;
    const MemoryBank bank({rows.data(), 200, HOST_DIM}, options, kernels());
    Memory memory;
    for (const size_t most : {size_t{UINT32_MAX} - 300, size_t{UINT32_MAX}, SIZE_MAX}) {
      if (representation == Representation::kScan && most == size_t{UINT32_MAX} - 300) continue;  // can be numbered
      CHECK_THROWS(CorrectedBank(bank.index(), most, memory), Status::kUsage, "more than can be numbered");
    }
    if (representation == Representation::kScan) continue;
    CHECK_THROWS(CorrectedBank(bank.index(), kMostSlots - 200, memory), Status::kUsage, "more than can be numbered");
  }
}

void test_an_index_whose_projection_lengthens_is_refused() {
  std::vector<float> rows(200 * 128);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * i % 1013);
  BuildOptions options;
  options.forced = true;
  options.representation = Representation::kRank;
  options.rank1 = options.rank2 = 64;
  const MemoryBank bank({rows.data(), 200, 128}, options, kernels());
  Memory memory;
  Buffer<uint8_t> bytes(memory, bank.index_size(), "index");
  for (const double scale : {1.0, 1.0000001, 1e300, 0.0, -1.0, std::nan("")}) {
    std::memcpy(bytes.data(), bank.index_data(), bytes.size());
    IndexHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    CHECK(header.scale > 0 && header.scale <= 1);
    header.scale = scale;
    std::memcpy(bytes.data(), &header, sizeof header);
    if (scale == 1) {
      CHECK(view_index(bytes.data(), bytes.size(), bank.index().rows).scale == 1);
    } else {
      CHECK_THROWS(view_index(bytes.data(), bytes.size(), bank.index().rows), Status::kInput, "at most 1");
    }
  }
}

}  // namespace

int main() {
  test_held_out_images_that_overflow_are_refused_and_change_nothing();
  test_a_bank_without_rows_calibrates_nothing();
  test_a_bound_beyond_the_slots_of_an_index_is_refused();
  test_an_index_whose_projection_lengthens_is_refused();
  return check::summary("recalibration");
}
