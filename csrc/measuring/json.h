// Text of JSON, put together by hand: values only, the caller writes braces and commas.
#pragma once

#include <string>

namespace onceover {

std::string json_text(const std::string& text);  // quoted and escaped
std::string json_number(double value);           // null when it is not finite
std::string json_member(const char* name, const std::string& json);

}  // namespace onceover
