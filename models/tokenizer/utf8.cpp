#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

struct LeadByte {
  int continuation;                 // bytes that must follow; -1: cannot begin a character
  unsigned char second_min = 0x80;  // the second byte is restricted for some leads (Unicode table 3-7)
  unsigned char second_max = 0xBF;
};

LeadByte classify(unsigned char byte) {
  if (byte < 0x80) return {0};
  if (byte < 0xC2) return {-1};
  if (byte < 0xE0) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1};
}

}  // namespace

Utf8Lead utf8_lead(std::string_view bytes) {
  const LeadByte lead = classify(static_cast<unsigned char>(bytes[0]));
  if (lead.continuation < 0) return {1, false, false};
  for (int i = 1; i <= lead.continuation; ++i) {
    if (static_cast<std::size_t>(i) >= bytes.size()) return {static_cast<std::size_t>(i), false, true};
    const auto byte = static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
    const unsigned char low = i == 1 ? lead.second_min : 0x80;
    const unsigned char high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return {static_cast<std::size_t>(i), false, false};
  }
  return {static_cast<std::size_t>(lead.continuation) + 1, true, false};
}

char32_t utf8_decode(std::string_view valid, std::size_t& size) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(valid[i])); };
  const char32_t first = byte(0);
  if (first < 0x80) {
    size = 1;
    return first;
  }
  if (first < 0xE0) {
    size = 2;
    return (first & 0x1F) << 6 | (byte(1) & 0x3F);
  }
  if (first < 0xF0) {
    size = 3;
    return (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  }
  size = 4;
  return (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

void utf8_append(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

bool utf8_valid(std::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Lead lead = utf8_lead(bytes);
    if (!lead.valid) return false;
    bytes.remove_prefix(lead.size);
  }
  return true;
}

std::string utf8_repair(std::string_view bytes) {
  Utf8Stream stream;
  std::string text = stream.add(bytes);
  text += stream.finish();
  return text;
}

std::string Utf8Stream::add(std::string_view bytes) {
  pending_.append(bytes);
  std::string_view rest = pending_;
  std::string text;
  text.reserve(rest.size());
  while (!rest.empty()) {
    const Utf8Lead lead = utf8_lead(rest);
    if (lead.cut_short) break;
    text.append(lead.valid ? rest.substr(0, lead.size) : kReplacementCharacter);
    rest.remove_prefix(lead.size);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

std::string Utf8Stream::finish() {
  if (pending_.empty()) return {};
  pending_.clear();
  return std::string(kReplacementCharacter);
}

}  // namespace lomu
