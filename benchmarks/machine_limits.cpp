// Limits of one core: multiply-adds in float32 and int8 from registers alone, reading from each level of memory, and
// writing what a large map takes. Prints one JSON object: operations in 1e9/s (a multiply-add counts as two) by
// instruction set, as kernels.def names them, 1e9 bytes/s, and bytes of each cache. Rates are the best of several tries
// in thread CPU time, as other work only slows one down.
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr int kTries = 9;
constexpr int kChains = 12;  // independent sums: latency 4 to 5 at two a cycle, and registers for the factors
constexpr long kSteps = 400'000;

double cpu_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Calls work, which does `amount` of something → 1e9 of it a second, at best.
template <typename Work>
double best_rate(double amount, const Work& work) {
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const double start = cpu_seconds();
    work();
    best = std::max(best, amount / (cpu_seconds() - start) / 1e9);
  }
  return best;
}

// A value that the compiler must take as changed, in a vector register.
#if defined(__x86_64__)
#define CHANGED(value) asm volatile("" : "+v"(value))
#elif defined(__aarch64__)
#define CHANGED(value) asm volatile("" : "+w"(value))
#else
#define CHANGED(value) asm volatile("" : "+r"(value))
#endif

// `kChains` sums of type Vector, each changed by step(sum, a, b) kSteps times; operations in one step.
template <typename Vector, typename Step>
[[maybe_unused]] double rate_of(Vector a, Vector b, double operations, const Step& step) {
  const auto next = [&step](Vector& sum, const Vector& x, const Vector& y) {
    sum = step(sum, x, y);
    CHANGED(sum);
  };
  return best_rate(operations * kChains * kSteps, [&] {  // named sums: an array would be kept in memory
    Vector x = a, y = b;
    Vector s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
    for (long i = 0; i < kSteps; ++i) {
      CHANGED(x);
      CHANGED(y);
      next(s0, x, y), next(s1, x, y), next(s2, x, y), next(s3, x, y);
      next(s4, x, y), next(s5, x, y), next(s6, x, y), next(s7, x, y);
      next(s8, x, y), next(s9, x, y), next(s10, x, y), next(s11, x, y);
    }
  });
}

#if defined(__AMX_INT8__)
struct alignas(64) TileShapes {
  uint8_t palette, start_row, zeros[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

double amx_rate() {  // four tiles accumulate, as in kernels/amx.cpp; 0 where the system does not grant the tiles
  constexpr long kArchReqXcompPerm = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) != 0) return 0;
  TileShapes shapes = {};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = 64;
    shapes.rows[i] = 16;
  }
  _tile_loadconfig(&shapes);
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  _tile_zero(4), _tile_zero(5), _tile_zero(6), _tile_zero(7);
  const double rate = best_rate(2.0 * 16 * 16 * 64 * 4 * kSteps, [] {
    for (long i = 0; i < kSteps; ++i) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  });
  _tile_release();
  return rate;
}
#endif

using Pairs = std::vector<std::pair<std::string, double>>;

Pairs float32_rates() {
  Pairs found;
#if defined(__AVX512F__)
  found.emplace_back("avx512", rate_of(_mm512_set1_ps(1e-3f), _mm512_set1_ps(1e-3f), 32,
                                       [](auto sum, auto a, auto b) { return _mm512_fmadd_ps(a, b, sum); }));
#endif
#if defined(__AVX2__) && defined(__FMA__)
  found.emplace_back("avx2", rate_of(_mm256_set1_ps(1e-3f), _mm256_set1_ps(1e-3f), 16,
                                     [](auto sum, auto a, auto b) { return _mm256_fmadd_ps(a, b, sum); }));
#endif
#if defined(__aarch64__)
  found.emplace_back("neon", rate_of(vdupq_n_f32(1e-3f), vdupq_n_f32(1e-3f), 8,
                                     [](auto sum, auto a, auto b) { return vfmaq_f32(sum, a, b); }));
#endif
  return found;
}

Pairs int8_rates() {
  Pairs found;
#if defined(__AMX_INT8__)
  const double amx = amx_rate();
  if (amx > 0) found.emplace_back("amx", amx);
#endif
#if defined(__AVX512VNNI__)
  found.emplace_back("avx512vnni", rate_of(_mm512_set1_epi8(1), _mm512_set1_epi8(1), 128,
                                           [](auto sum, auto a, auto b) { return _mm512_dpbusd_epi32(sum, a, b); }));
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  found.emplace_back("avxvnni", rate_of(_mm256_set1_epi8(1), _mm256_set1_epi8(1), 64,
                                        [](auto sum, auto a, auto b) { return _mm256_dpbusd_epi32(sum, a, b); }));
#elif defined(__AVXVNNI__)
  found.emplace_back("avxvnni", rate_of(_mm256_set1_epi8(1), _mm256_set1_epi8(1), 64,
                                        [](auto sum, auto a, auto b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }));
#endif
#if defined(__AVX2__)
  const __m256i ones = _mm256_set1_epi16(1);
  found.emplace_back("avx2", rate_of(_mm256_set1_epi8(1), _mm256_set1_epi8(1), 64, [&](auto sum, auto a, auto b) {
                       __m256i pairs = _mm256_maddubs_epi16(a, b);
                       CHANGED(pairs);  // or one product would serve all chains
                       return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
                     }));
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
  found.emplace_back("neon_i8mm", rate_of(vdupq_n_s32(1), vdupq_n_s32(1), 64, [](auto sum, auto a, auto b) {
                       return vmmlaq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
                     }));
#endif
#if defined(__ARM_FEATURE_DOTPROD)
  found.emplace_back("neon_dotprod", rate_of(vdupq_n_s32(1), vdupq_n_s32(1), 32, [](auto sum, auto a, auto b) {
                       return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
                     }));
#endif
#if defined(__aarch64__)
  found.emplace_back("neon", rate_of(vdupq_n_s32(1), vdupq_n_s32(1), 32, [](auto sum, auto a, auto b) {
                       const int8x16_t x = vreinterpretq_s8_s32(a), y = vreinterpretq_s8_s32(b);
                       int16x8_t pairs =
                           vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(y)), vget_high_s8(x), vget_high_s8(y));
                       CHANGED(pairs);
                       return vpadalq_s16(sum, pairs);
                     }));
#endif
  return found;
}

typedef int64_t Line __attribute__((vector_size(64)));

// Reads `bytes`, a multiple of 512, again and again, about 256 MB in all; the sum keeps the loads.
double read_rate(const std::vector<Line>& memory, size_t bytes) {
  const size_t lines = bytes / sizeof(Line), repeats = std::max<size_t>(1, (size_t{256} << 20) / bytes);
  return best_rate(static_cast<double>(bytes * repeats), [&] {
    Line sums[8] = {};
    for (size_t r = 0; r < repeats; ++r) {
      const Line* at = memory.data();
      for (size_t i = 0; i < lines; i += 8) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; ++j) sums[j] += at[i + j];
      }
      asm volatile("" : : "r"(at) : "memory");  // each pass reads anew
    }
    volatile int64_t keep = 0;
    for (const Line& sum : sums) keep = keep + sum[0];
  });
}

// Writes `bytes` again and again, about 256 MB in all.
double write_rate(std::vector<Line>& memory, size_t bytes) {
  const size_t lines = bytes / sizeof(Line), repeats = std::max<size_t>(1, (size_t{256} << 20) / bytes);
  return best_rate(static_cast<double>(bytes * repeats), [&] {
    for (size_t r = 0; r < repeats; ++r) {
      Line* at = memory.data();
      for (size_t i = 0; i < lines; ++i) at[i] = Line{static_cast<int64_t>(r)};
      asm volatile("" : : "r"(at) : "memory");
    }
  });
}

// The same once, into pages that the system has to find and clear first; huge ones where it grants them, as numpy asks
// for large arrays.
double write_fresh_rate(size_t bytes) {
  return best_rate(static_cast<double>(bytes), [&] {
    constexpr size_t kHuge = size_t{2} << 20;
    void* const found = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return;
    madvise(found, bytes + kHuge, MADV_HUGEPAGE);
    Line* const lines = static_cast<Line*>(found);
    for (size_t i = 0; i < bytes / sizeof(Line); ++i) lines[i] = Line{1};
    asm volatile("" : : "r"(lines) : "memory");
    munmap(found, bytes + kHuge);
  });
}

size_t cache_bytes(int name, size_t otherwise) {
  const long found = sysconf(name);
  return found > 0 ? static_cast<size_t>(found) : otherwise;
}

std::string object(const Pairs& pairs) {
  std::string text;
  for (const auto& [name, value] : pairs) {
    char number[64];
    std::snprintf(number, sizeof number, "%s\"%s\": %.1f", text.empty() ? "" : ", ", name.c_str(), value);
    text += number;
  }
  return "{" + text + "}";
}

}  // namespace

int main() {
  const size_t l1 = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32 << 10), l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 512 << 10);
  const size_t l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, 0);
  std::vector<Line> memory((std::max<size_t>(4 * l3, size_t{256} << 20)) / sizeof(Line), Line{1});
  const auto aligned = [](size_t bytes) { return bytes / 512 * 512; };
  Pairs read = {{"L1", read_rate(memory, aligned(l1 / 2))}, {"L2", read_rate(memory, aligned(l2 / 2))}};
  if (l3 > 4 * l2) read.emplace_back("L3", read_rate(memory, aligned(std::min(l3 / 4, 4 * l2))));
  read.emplace_back("memory", read_rate(memory, memory.size() * sizeof(Line)));
  constexpr size_t kMap = size_t{1944} * 2592 * 4;  // the map of a 5-megapixel frame
  const Pairs write = {{"again", write_rate(memory, kMap)}, {"fresh pages", write_fresh_rate(kMap)}};
  const Pairs sizes = {{"L1", l1}, {"L2", l2}, {"L3", l3}};
  std::printf("{\"float32\": %s, \"int8\": %s, \"read\": %s, \"write\": %s, \"bytes\": %s}\n",
              object(float32_rates()).c_str(), object(int8_rates()).c_str(), object(read).c_str(),
              object(write).c_str(), object(sizes).c_str());
  return 0;
}
