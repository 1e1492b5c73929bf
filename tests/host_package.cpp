// host_package PATH: writes the package that the tests of the C ABI open.
#include "host_package.h"

#include <algorithm>

#include "check.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::vector<uint8_t> bytes = host_package::bytes();
  onceover::save_atomically(argv[1], bytes.data(), bytes.size());
  CHECK(onceover::Package::open(argv[1])->members().size() == 7);
  return check::summary("host_package");
}
