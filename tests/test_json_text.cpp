// A manifest edited as text: values are found by their keys, what is set or appended is there and everything else stays
// byte for byte, texts of any bytes become JSON strings, and what is no JSON object is refused.
#include "compaction/json_text.h"

#include <string>

#include "check.h"

using namespace onceover;

namespace {

JsonText made(const std::string& text) { return {text, "test"}; }

void test_values_are_found_by_their_keys() {
  const JsonText json = made(
      " {\"a\": {\"b\": [1, {\"b\": 2}, \"]\"], \"c\\\"\": \"}\"}, \"b\" :\t-1.5e+3 , \"n\": null, \"e\": [], \"b\": "
      "true}\n");
  CHECK(json.find({"a", "b"}) == "[1, {\"b\": 2}, \"]\"]");
  CHECK(json.find({"b"}) == "true");  // the last of equal keys
  CHECK(json.find({"a", "b", "1", "b"}) == "2" && json.find({"a", "b", "0"}) == "1" && !json.find({"a", "b", "3"}));
  CHECK(!json.find({"a", "b", "01"}) && !json.find({"a", "0"}) && !json.find({"e", "0"}));
  CHECK(json.find({"n"}) == "null" && json.find({"a", "c\\\""}) == "\"}\"");
  CHECK(!json.find({"c"}) && !json.find({"b", "a"}) && !json.find({"n", "a"}) && !json.find({"a", "b", "b"}));
  CHECK(json.is_object({}) && json.is_object({"a"}) && !json.is_object({"b"}) && !json.is_object({"z"}));
  CHECK(json.count({"a", "b"}) == 3u && json.count({"e"}) == 0u && !json.count({"a"}) && !json.count({"z"}));
}

void test_only_what_is_set_changes() {
  JsonText json = made("{\n \"a\": {\n  \"x\": 1\n },\n \"list\": [\n  \"one\"\n ],\n \"none\": [ ],\n \"z\": 0\n}");
  json.set({"a"}, "x", "[2]");
  json.set({}, "q\"", "\"new\"");
  json.append({"list"}, {"\"two\"", "3"});
  json.append({"none"}, {"1", "2"});
  json.append({"list"}, {});
  CHECK(json.text() ==
        "{\n \"a\": {\n  \"x\": [2]\n },\n \"list\": [\n  \"one\",\n  \"two\",\n  3\n ],\n \"none\": [1,2 ],\n \"z\": "
        "0,\n "
        "\"q\\\"\": \"new\"\n}");
  CHECK(made(json.text()).count({"list"}) == 3u);
  JsonText items = made("{\"p\": [{\"x\": 1}, {\"x\": [2]}]}");
  items.set({"p", "1"}, "y", "3");
  items.append({"p", "1", "x"}, {"4"});
  CHECK(items.text() == "{\"p\": [{\"x\": 1}, {\"x\": [2,4],\"y\": 3}]}");
  JsonText empty = made("{}");
  empty.set({}, "a", "1");
  empty.set({}, "b", "2");
  CHECK(empty.text() == "{\"a\": 1,\"b\": 2}");
  CHECK_THROWS(empty.set({"a"}, "b", "1"), Status::kInternal, "no JSON object");
  CHECK_THROWS(empty.append({"a"}, {"1"}), Status::kInternal, "no JSON array");
}

void test_texts_of_any_bytes_become_json_strings() {
  CHECK(json_string("a/b c") == "\"a/b c\"");
  CHECK(json_string("say \"\\\"") == "\"say \\\"\\\\\\\"\"");
  CHECK(json_string(std::string("\0\n\x1f\x7f", 4)) == "\"\\u0000\\u000a\\u001f\\u007f\"");
  CHECK(json_string("Teil \xc3\xa4 \xe2\x82\xac \xf0\x9f\x94\xa9") ==
        "\"Teil \xc3\xa4 \xe2\x82\xac \xf0\x9f\x94\xa9\"");
  const std::string unknown = "\xef\xbf\xbd";
  CHECK(json_string("a\xff"
                    "b") == "\"a" + unknown + "b\"");
  CHECK(json_string("\xc3") == "\"" + unknown + "\"");                              // cut
  CHECK(json_string("\xc0\x80") == "\"" + unknown + unknown + "\"");                // longer than needed
  CHECK(json_string("\xed\xa0\x80") == "\"" + unknown + unknown + unknown + "\"");  // half of a pair
  CHECK(json_string("\xf4\x90\x80\x80").size() == 2 + 4 * 3);                       // beyond Unicode
  for (int byte = 0; byte < 256; ++byte) {
    for (int next = 0; next < 256; ++next) {
      const char text[] = {static_cast<char>(byte), static_cast<char>(next)};
      const std::string quoted = json_string({text, 2});
      CHECK(made("{" + quoted + ": " + quoted + "}").find({quoted.substr(1, quoted.size() - 2)}) == quoted);
    }
  }
}

void test_what_is_no_json_object_is_refused() {
  const char* const wrong[] = {"",
                               "  ",
                               "[]",
                               "1",
                               "{",
                               "{}x",
                               "{} {}",
                               "{\"a\"}",
                               "{\"a\":}",
                               "{\"a\": 1,}",
                               "{\"a\": 1 \"b\": 2}",
                               "{a: 1}",
                               "{\"a\": 01}",
                               "{\"a\": +1}",
                               "{\"a\": 1.}",
                               "{\"a\": 1e}",
                               "{\"a\": -}",
                               "{\"a\": NaN}",
                               "{\"a\": tru}",
                               "{\"a\": [1, ]}",
                               "{\"a\": [1}",
                               "{\"a\": \"x}",
                               "{\"a\": \"\\x\"}",
                               "{\"a\": \"\\u12g4\"}",
                               "{\"a\": \"\\",
                               "{\"a\": \"\\u12",
                               "{\"a\": \"\n\"}",
                               "{\"a\": \"\xff\"}",
                               "{\"\xc3(\": 1}"};
  for (const char* text : wrong) CHECK_THROWS(made(text), Status::kPackage, "test: is not a JSON object");
  const std::string whole = "{\"a\": [1, {\"b\": \"\\u00e4\\n\"}, -0.5e-7, true, false, null], \"c\": {}}";
  CHECK(made(whole).text() == whole);
  for (size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS(made(whole.substr(0, size)), Status::kPackage, "is not a JSON object");
  }
  const auto nested = [](size_t depth) { return "{\"a\": " + std::string(depth, '[') + std::string(depth, ']') + "}"; };
  CHECK(made(nested(100)).count({"a"}) == 1u);
  CHECK_THROWS(made(nested(101)), Status::kPackage, "nested too deep");
}

}  // namespace

int main() {
  test_values_are_found_by_their_keys();
  test_only_what_is_set_changes();
  test_texts_of_any_bytes_become_json_strings();
  test_what_is_no_json_object_is_refused();
  return check::summary("json_text");
}
