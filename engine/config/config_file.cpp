#include "engine/config/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string_view>
#include <system_error>

#include "kernels/error.h"

namespace lomu::config {
namespace {

// A job file is a few kilobytes; anything near this is the wrong file.
constexpr std::size_t kMostBytes = std::size_t{1} << 20;

/// Length of the UTF-8 character at the start of `text`, or 0 if there is none (RFC 3629: no overlong forms, no
/// surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(i < text.size() ? text[i] : 0); };
  const auto tail = [byte](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool overlong = first == 0xe0 && byte(1) < 0xa0;
    const bool surrogate = first == 0xed && byte(1) > 0x9f;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool overlong = first == 0xf0 && byte(1) < 0x90;
    const bool beyond = first == 0xf4 && byte(1) > 0x8f;
    return tail(1) && tail(2) && tail(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

bool is_control(char c) {
  const auto u = static_cast<unsigned char>(c);
  return (u < 0x20 && c != '\t' && c != '\n' && c != '\r') || u == 0x7f;
}

void require_text(std::string_view text, const std::string& name) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text.substr(at));
    if (length == 0 || (length == 1 && is_control(text[at]))) {
      const auto line = 1 + std::ranges::count(text.substr(0, at), '\n');
      throw UsageError(length == 0 ? "the file is not UTF-8 text" : "the file is not text: it holds control characters",
                       fmt::format("{}:{}", name, line), "is this the YAML file of a job?");
    }
    at += length;
  }
}

}  // namespace

std::string read_config_file(const std::filesystem::path& file) {
  const std::string name = file.string();
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    throw UsageError("the configuration is a folder, not a file", name, "name the YAML file in it");
  }
  const auto close = [](std::FILE* f) { std::fclose(f); };
  const std::unique_ptr<std::FILE, decltype(close)> in(std::fopen(name.c_str(), "rb"), close);
  if (!in) {
    const int error = errno;
    throw UsageError(fmt::format("the configuration cannot be read: {}", std::generic_category().message(error)), name,
                     error == ENOENT ? "check the path; configs/ holds ready examples" : "");
  }
  std::string text(kMostBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), in.get()));
  if (std::ferror(in.get()) != 0) throw UsageError("the configuration cannot be read to its end", name);
  if (text.size() > kMostBytes) {
    throw UsageError("the file is too large for a configuration (over 1 MiB)", name, "is this the YAML file of a job?");
  }
  require_text(text, name);
  return text;
}

}  // namespace lomu::config
