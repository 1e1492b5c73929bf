// host_package PATH: writes the packages that the tests of the C ABI open: PATH, PATH.tiles (with a region of interest)
// and PATH.products.
#include <algorithm>
#include <string>

#include "check.h"
#include "product_package.h"

namespace {

void save(const std::string& path, const std::vector<uint8_t>& bytes) {
  onceover::save_atomically(path.c_str(), bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string path = argv[1];
  save(path, host_package::bytes());
  CHECK(onceover::Package::open(path)->members().size() == 7);
  std::vector<uint8_t> roi(64, 0);
  std::fill(roi.begin() + 16, roi.begin() + 48, uint8_t{1});  // the middle half of the rows
  save(path + ".tiles", host_package::bytes({true, true, {2, 2, 1, 1}, roi}));
  save(path + ".products", host_package::two_products());
  return check::summary("host_package");
}
