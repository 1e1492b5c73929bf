// Whether an ONNX graph in memory is complete in itself. An engine that follows a graph's references to other files
// would read whatever lies in the working directory; onnxruntime can be told not to, OpenVINO cannot.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onceover {

enum class OnnxContent { kComplete, kExternalData, kDamaged };

// Walks the protobuf encoding (onnx.proto, IR versions 3 to 13) and looks at every tensor; copies nothing.
OnnxContent inspect_onnx(const uint8_t* data, size_t size) noexcept;

}  // namespace onceover
