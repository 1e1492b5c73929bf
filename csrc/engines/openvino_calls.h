// The calls of OpenVINO's C API that we use, resolved by name, and the few records they exchange. The library's file
// name changes with every release, these calls do not: 2024.6 to 2026.4 were run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover::ov {

struct Core;
struct Model;
struct Port;
struct CompiledModel;
struct InferRequest;
struct Tensor;

using Status = int;  // 0 is success
// An element type is a number that changed once: between 2024.6 and 2025.2 one was taken from the front of the list.
// So we ask which of the two float32 is (openvino.cpp), and know uint8 by its distance.
using ElementType = int;
inline constexpr ElementType kFloat32Candidates[] = {4, 5};
inline constexpr ElementType kUint8AfterFloat32 = 12;

struct Version {
  const char* build;  // "2026.4.1-22982-e213a147257-releases/2026/4"
  const char* description;
};
struct DeviceList {
  char** names;
  size_t count;
};
struct Shape {
  int64_t rank;
  int64_t* dimensions;
};
struct Dimension {
  int64_t smallest, largest;  // equal when fixed; largest is -1 when open
};
struct PartialShape {
  Dimension rank;  // likewise
  Dimension* dimensions;
};

// X(name after the prefix ov_, return type, parameters)
#define ONCEOVER_OPENVINO_CALLS(X)                                                                 \
  X(get_openvino_version, Status, (Version*))                                                      \
  X(version_free, void, (Version*))                                                                \
  X(get_last_err_msg, const char*, ())                                                             \
  X(free, void, (const char*))                                                                     \
  X(core_create, Status, (Core**))                                                                 \
  X(core_free, void, (Core*))                                                                      \
  X(core_get_available_devices, Status, (const Core*, DeviceList*))                                \
  X(available_devices_free, void, (DeviceList*))                                                   \
  X(core_read_model_from_memory_buffer, Status,                                                    \
    (const Core*, const char* graph, size_t, const Tensor* weights, Model**))                      \
  X(core_compile_model, Status,                                                                    \
    (const Core*, const Model*, const char* device, size_t argument_count, CompiledModel**, ...))  \
  X(model_inputs_size, Status, (const Model*, size_t*))                                            \
  X(model_outputs_size, Status, (const Model*, size_t*))                                           \
  X(model_const_input, Status, (const Model*, Port**))                                             \
  X(model_const_output, Status, (const Model*, Port**))                                            \
  X(model_reshape_single_input, Status, (const Model*, PartialShape))                              \
  X(model_free, void, (Model*))                                                                    \
  X(port_get_element_type, Status, (const Port*, ElementType*))                                    \
  X(port_get_partial_shape, Status, (const Port*, PartialShape*))                                  \
  X(output_const_port_free, void, (Port*))                                                         \
  X(partial_shape_create_static, Status, (int64_t rank, const int64_t* dimensions, PartialShape*)) \
  X(partial_shape_free, void, (PartialShape*))                                                     \
  X(shape_free, Status, (Shape*))                                                                  \
  X(compiled_model_create_infer_request, Status, (const CompiledModel*, InferRequest**))           \
  X(compiled_model_free, void, (CompiledModel*))                                                   \
  X(infer_request_set_input_tensor, Status, (InferRequest*, const Tensor*))                        \
  X(infer_request_set_output_tensor, Status, (InferRequest*, const Tensor*))                       \
  X(infer_request_get_output_tensor, Status, (const InferRequest*, Tensor**))                      \
  X(infer_request_infer, Status, (InferRequest*))                                                  \
  X(infer_request_free, void, (InferRequest*))                                                     \
  X(tensor_create, Status, (ElementType, Shape, Tensor**))                                         \
  X(tensor_create_from_host_ptr, Status, (ElementType, Shape, void*, Tensor**))                    \
  X(tensor_get_byte_size, Status, (const Tensor*, size_t*))                                        \
  X(tensor_get_shape, Status, (const Tensor*, Shape*))                                             \
  X(tensor_data, Status, (const Tensor*, void**))                                                  \
  X(tensor_free, void, (Tensor*))

struct Calls {
#define ONCEOVER_OPENVINO_DECLARE(name, result, parameters) result(*name) parameters = nullptr;
  ONCEOVER_OPENVINO_CALLS(ONCEOVER_OPENVINO_DECLARE)
#undef ONCEOVER_OPENVINO_DECLARE

  // find: symbol → address or nullptr. Returns the first symbol that is missing, nullptr when none is.
  template <typename Find>
  const char* resolve(const Find& find) {
#define ONCEOVER_OPENVINO_RESOLVE(name, result, parameters)         \
  name = reinterpret_cast<result(*) parameters>(find("ov_" #name)); \
  if (name == nullptr) return "ov_" #name;
    ONCEOVER_OPENVINO_CALLS(ONCEOVER_OPENVINO_RESOLVE)
#undef ONCEOVER_OPENVINO_RESOLVE
    return nullptr;
  }
};

}  // namespace onceover::ov
