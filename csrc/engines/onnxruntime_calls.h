// The calls of ONNX Runtime's C API that we use, by their slot in its table of function pointers. The table is
// append-only by the promise of its authors, so slots hold for every release since the API version we ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace onceover::ort {

struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct RunOptions;
struct Value;
struct MemoryInfo;
struct TypeInfo;
struct TensorInfo;
struct Allocator;
struct CudaOptions;
struct TensorRtOptions;

inline constexpr uint32_t kApiVersion = 18;    // the first whose table holds slot 273
inline constexpr uint32_t kMinimumMinor = 21;  // 1.21 is the first release that can be kept from reading external data
inline constexpr int kLogFatal = 4;            // the core prints nothing: what goes wrong comes back as a status
inline constexpr int kOptimizeAll = 99;
inline constexpr int kElementFloat32 = 1;
inline constexpr int kDeviceAllocator = 0;
inline constexpr int kMemoryDefault = 0;

// X(slot, name, return type, parameters)
#define ONCEOVER_ORT_CALLS(X)                                                                                   \
  X(2, GetErrorMessage, const char*, (const Status*))                                                           \
  X(3, CreateEnv, Status*, (int log_level, const char* name, Env**))                                            \
  X(8, CreateSessionFromArray, Status*, (const Env*, const void*, size_t, const SessionOptions*, Session**))    \
  X(9, Run, Status*,                                                                                            \
    (Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs, size_t,           \
     const char* const* output_names, size_t, Value** outputs))                                                 \
  X(10, CreateSessionOptions, Status*, (SessionOptions**))                                                      \
  X(23, SetSessionGraphOptimizationLevel, Status*, (SessionOptions*, int))                                      \
  X(24, SetIntraOpNumThreads, Status*, (SessionOptions*, int))                                                  \
  X(25, SetInterOpNumThreads, Status*, (SessionOptions*, int))                                                  \
  X(30, SessionGetInputCount, Status*, (const Session*, size_t*))                                               \
  X(31, SessionGetOutputCount, Status*, (const Session*, size_t*))                                              \
  X(33, SessionGetInputTypeInfo, Status*, (const Session*, size_t, TypeInfo**))                                 \
  X(34, SessionGetOutputTypeInfo, Status*, (const Session*, size_t, TypeInfo**))                                \
  X(36, SessionGetInputName, Status*, (const Session*, size_t, Allocator*, char**))                             \
  X(37, SessionGetOutputName, Status*, (const Session*, size_t, Allocator*, char**))                            \
  X(49, CreateTensorWithDataAsOrtValue, Status*,                                                                \
    (const MemoryInfo*, void*, size_t bytes, const int64_t* shape, size_t, int element_type, Value**))          \
  X(55, CastTypeInfoToTensorInfo, Status*, (const TypeInfo*, const TensorInfo**))                               \
  X(60, GetTensorElementType, Status*, (const TensorInfo*, int*))                                               \
  X(61, GetDimensionsCount, Status*, (const TensorInfo*, size_t*))                                              \
  X(62, GetDimensions, Status*, (const TensorInfo*, int64_t*, size_t))                                          \
  X(69, CreateCpuMemoryInfo, Status*, (int allocator_type, int memory_type, MemoryInfo**))                      \
  X(76, AllocatorFree, Status*, (Allocator*, void*))                                                            \
  X(78, GetAllocatorWithDefaultOptions, Status*, (Allocator**))                                                 \
  X(92, ReleaseEnv, void, (Env*))                                                                               \
  X(93, ReleaseStatus, void, (Status*))                                                                         \
  X(94, ReleaseMemoryInfo, void, (MemoryInfo*))                                                                 \
  X(95, ReleaseSession, void, (Session*))                                                                       \
  X(96, ReleaseValue, void, (Value*))                                                                           \
  X(98, ReleaseTypeInfo, void, (TypeInfo*))                                                                     \
  X(100, ReleaseSessionOptions, void, (SessionOptions*))                                                        \
  X(125, GetAvailableProviders, Status*, (char*** names, int* count))                                           \
  X(126, ReleaseAvailableProviders, Status*, (char** names, int count))                                         \
  X(130, AddSessionConfigEntry, Status*, (SessionOptions*, const char* key, const char* value))                 \
  X(170, SessionOptionsAppendExecutionProvider_TensorRT_V2, Status*, (SessionOptions*, const TensorRtOptions*)) \
  X(171, CreateTensorRTProviderOptions, Status*, (TensorRtOptions**))                                           \
  X(172, UpdateTensorRTProviderOptions, Status*,                                                                \
    (TensorRtOptions*, const char* const* keys, const char* const* values, size_t))                             \
  X(174, ReleaseTensorRTProviderOptions, void, (TensorRtOptions*))                                              \
  X(204, SessionOptionsAppendExecutionProvider_CUDA_V2, Status*, (SessionOptions*, const CudaOptions*))         \
  X(205, CreateCUDAProviderOptions, Status*, (CudaOptions**))                                                   \
  X(206, UpdateCUDAProviderOptions, Status*,                                                                    \
    (CudaOptions*, const char* const* keys, const char* const* values, size_t))                                 \
  X(208, ReleaseCUDAProviderOptions, void, (CudaOptions*))                                                      \
  X(216, SessionOptionsAppendExecutionProvider, Status*,                                                        \
    (SessionOptions*, const char* name, const char* const* keys, const char* const* values, size_t))            \
  X(273, SetDeterministicCompute, Status*, (SessionOptions*, bool))

// What the library's one exported symbol, OrtGetApiBase, returns.
struct ApiBase {
  const void* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// Whether a release ("1.31.1") is 1.kMinimumMinor or newer; no for what is not a version.
inline bool is_recent(const char* version) {
  unsigned major = 0, minor = 0;
  if (version == nullptr || std::sscanf(version, "%u.%u", &major, &minor) != 2) return false;
  return major > 1 || (major == 1 && minor >= kMinimumMinor);
}

struct Calls {
#define ONCEOVER_ORT_DECLARE(slot, name, result, parameters) result(*name) parameters;
  ONCEOVER_ORT_CALLS(ONCEOVER_ORT_DECLARE)
#undef ONCEOVER_ORT_DECLARE

  // table: what GetApi returned, an array of function pointers.
  explicit Calls(const void* table) noexcept {
    using Slot = void (*)();
    const Slot* slots = static_cast<const Slot*>(table);
#define ONCEOVER_ORT_RESOLVE(slot, name, result, parameters) name = reinterpret_cast<result(*) parameters>(slots[slot]);
    ONCEOVER_ORT_CALLS(ONCEOVER_ORT_RESOLVE)
#undef ONCEOVER_ORT_RESOLVE
  }
};

}  // namespace onceover::ort
