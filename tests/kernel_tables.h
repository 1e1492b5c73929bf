// The tables that a test goes through: what this machine can run, and the two whose instructions it may lack, built a
// second time with those instructions spelled out (avxvnni by AVX-512's encoding, amx in plain C++); of each the table
// that it counts by, too.
#pragma once

#include <vector>

#include "base/cpu_features.h"
#include "kernels/dispatch.h"

namespace onceover {

#if defined(__x86_64__)
extern const KernelTable emulated_avxvnni_kernels, emulated_amx_kernels;
#endif

inline std::vector<const KernelTable*> tables_under_test() {
  std::vector<const KernelTable*> tables = available_kernels();
#if defined(__x86_64__)
  if (cpu_runs_avx512vnni()) tables.insert(tables.end(), {&emulated_avxvnni_kernels, &emulated_amx_kernels});
#endif
  for (size_t i = 0, count = tables.size(); i < count; ++i) {
    if (tables[i]->counting != nullptr) tables.push_back(tables[i]->counting);
  }
  return tables;
}

}  // namespace onceover
