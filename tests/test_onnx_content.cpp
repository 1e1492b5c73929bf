// Which ONNX graphs keep everything in themselves; the graphs are spelled in protobuf by hand.
#include "engines/onnx_content.h"

#include <string>
#include <utility>

#include "check.h"

using onceover::OnnxContent;

namespace {

using Text = std::string;

Text varint(size_t value) {
  Text text;
  for (; value > 0x7f; value >>= 7) text += static_cast<char>(0x80 | (value & 0x7f));
  return text + static_cast<char>(value);
}

// A field that holds a message, bytes or text: wire type 2.
Text message(size_t field, const Text& content) { return varint(field << 3 | 2) + varint(content.size()) + content; }

OnnxContent inspect(const Text& text) {
  return onceover::inspect_onnx(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

void test_external_data_is_found_wherever_a_tensor_can_be() {
  const Text inside = message(9, "raw"), elsewhere = "\x70\x01", named = message(13, "");
  for (const auto& [tensor, expected] :
       {std::pair{inside, OnnxContent::kComplete}, std::pair{inside + elsewhere, OnnxContent::kExternalData},
        std::pair{named, OnnxContent::kExternalData}}) {
    const Text attribute = message(5, tensor), sparse = message(2, tensor);
    const Text graph = message(1, message(5, attribute));
    for (const Text& model : {message(7, message(5, tensor)), message(7, message(15, sparse)), message(7, graph),
                              message(7, message(1, message(5, message(6, graph)))),
                              message(7, message(1, message(5, message(22, sparse)))),
                              message(7, "") + message(25, message(7, message(5, attribute))),
                              message(7, "") + message(20, message(1, graph))}) {
      CHECK(inspect(model) == expected);
      for (size_t size = 0; size < model.size(); ++size) {  // cut anywhere
        const auto content = inspect(model.substr(0, size));
        CHECK(content != OnnxContent::kExternalData || expected == content);
      }
    }
  }
}

void test_what_is_not_onnx_is_damaged() {
  for (const Text& damaged : {Text("<?xml version='1.0'?>"), Text("\x3b\x3c"), Text("\x3a\x7f"), Text(20, '\xff'),
                              Text("\x08\x08"), Text()}) {
    // OpenVINO's IR; a group; a length beyond the end; a number without end; no graph; nothing
    CHECK(inspect(damaged) == OnnxContent::kDamaged);
  }
}

void test_graphs_nest_as_deep_as_protobuf_reads() {
  const auto nested = [](int levels) {  // graph → node → attribute → graph → …
    Text graph;
    for (int i = 0; i < levels; ++i) graph = message(1, message(5, message(6, graph)));
    return message(7, graph);
  };
  CHECK(inspect(nested(32)) == OnnxContent::kComplete);
  CHECK(inspect(nested(40)) == OnnxContent::kDamaged);
  CHECK(inspect(nested(10000)) == OnnxContent::kDamaged);
}

}  // namespace

int main() {
  test_external_data_is_found_wherever_a_tensor_can_be();
  test_what_is_not_onnx_is_damaged();
  test_graphs_nest_as_deep_as_protobuf_reads();
  return check::summary("onnx_content");
}
