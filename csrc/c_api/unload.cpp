// Only in a library with a C++ library inside (ONCEOVER_STATIC_LIBSTDCXX): what that keeps for exceptions when memory
// runs out, 72 KB, would stay behind each time the library is closed.
namespace __gnu_cxx {
void __freeres();
}

namespace {
[[gnu::destructor]] void free_emergency_pool() { __gnu_cxx::__freeres(); }
}  // namespace
