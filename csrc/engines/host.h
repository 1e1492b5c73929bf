// Engine "host": the application runs the network itself, on an accelerator that only it knows.
#pragma once

#include <cstdint>

namespace onceover {

struct HostNetwork {
  // input: the prepared image, float32 (1, 3, H, W). To fill: output, the patch embeddings, float32 (1, P, D). Returns
  // 0, or a code of the application's for a run that failed.
  int32_t (*run)(void* context, const float* input, float* output) = nullptr;
  void* context = nullptr;
};

}  // namespace onceover
