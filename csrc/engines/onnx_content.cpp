#include "engines/onnx_content.h"

namespace onceover {
namespace {

enum class Message { kModel, kGraph, kNode, kAttribute, kTensor, kSparseTensor, kFunction, kTraining };

// Which fields of which message hold messages that can lead to a tensor.
constexpr struct {
  Message parent;
  uint64_t field;
  Message child;
} kNested[] = {
    {Message::kModel, 7, Message::kGraph},
    {Message::kModel, 20, Message::kTraining},
    {Message::kModel, 25, Message::kFunction},
    {Message::kGraph, 1, Message::kNode},
    {Message::kGraph, 5, Message::kTensor},
    {Message::kGraph, 15, Message::kSparseTensor},
    {Message::kNode, 5, Message::kAttribute},
    {Message::kAttribute, 5, Message::kTensor},
    {Message::kAttribute, 6, Message::kGraph},
    {Message::kAttribute, 10, Message::kTensor},
    {Message::kAttribute, 11, Message::kGraph},
    {Message::kAttribute, 22, Message::kSparseTensor},
    {Message::kAttribute, 23, Message::kSparseTensor},
    {Message::kSparseTensor, 1, Message::kTensor},
    {Message::kSparseTensor, 2, Message::kTensor},
    {Message::kFunction, 7, Message::kNode},
    {Message::kFunction, 11, Message::kAttribute},
    {Message::kTraining, 1, Message::kGraph},
    {Message::kTraining, 2, Message::kGraph},
};
constexpr uint64_t kGraphOfModel = 7, kExternalData = 13, kDataLocation = 14;
constexpr int kMaxDepth = 100;  // as protobuf's own readers

struct Bytes {
  const uint8_t* at;
  const uint8_t* end;

  size_t left() const { return static_cast<size_t>(end - at); }

  bool varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at == end) return false;
      const uint8_t byte = *at++;
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool take(uint64_t count, Bytes& taken) {
    if (count > left()) return false;
    taken = {at, at + count};
    at += count;
    return true;
  }
};

struct Field {
  uint64_t number = 0, value = 0;  // value: of a varint
  bool is_message = false;         // or text, or bytes
  Bytes content{};
};

// Groups, which ONNX does not have, count as damage.
bool next_field(Bytes& bytes, Field& field) {
  uint64_t key = 0, length = 0;
  if (!bytes.varint(key)) return false;
  field = {};
  field.number = key >> 3;
  switch (key & 7) {
    case 0:
      return bytes.varint(field.value);
    case 1:
      return bytes.take(8, field.content);
    case 2:
      field.is_message = true;
      return bytes.varint(length) && bytes.take(length, field.content);
    case 5:
      return bytes.take(4, field.content);
    default:
      return false;
  }
}

OnnxContent walk(Message message, Bytes bytes, int depth) {
  if (depth > kMaxDepth) return OnnxContent::kDamaged;
  bool has_graph = message != Message::kModel;
  Field field;
  while (bytes.left() > 0) {
    if (!next_field(bytes, field)) return OnnxContent::kDamaged;
    if (message == Message::kTensor) {
      const bool elsewhere = field.number == kDataLocation && field.value != 0;
      if (elsewhere || field.number == kExternalData) return OnnxContent::kExternalData;
    }
    if (!field.is_message) continue;
    has_graph = has_graph || field.number == kGraphOfModel;
    for (const auto& nested : kNested) {
      if (nested.parent != message || nested.field != field.number) continue;
      const OnnxContent content = walk(nested.child, field.content, depth + 1);
      if (content != OnnxContent::kComplete) return content;
    }
  }
  return has_graph ? OnnxContent::kComplete : OnnxContent::kDamaged;
}

}  // namespace

OnnxContent inspect_onnx(const uint8_t* data, size_t size) noexcept {
  return walk(Message::kModel, {data, data + size}, 0);
}

}  // namespace onceover
