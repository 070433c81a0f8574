#include "models/tokenizer/added_tokens.h"

#include <algorithm>

#include "models/tokenizer/unicode.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Where the last character of a text begins.
std::size_t last_character(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  std::size_t size = 0;
  return !text.empty() && is_word_character(utf8_decode(text.substr(last_character(text)), size));
}

bool starts_with_word(std::string_view text) {
  std::size_t size = 0;
  return !text.empty() && is_word_character(utf8_decode(text, size));
}

std::size_t without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const std::size_t at = last_character(text);
    std::size_t size = 0;
    if (!is_white_space(utf8_decode(text.substr(at), size))) break;
    text = text.substr(0, at);
  }
  return text.size();
}

std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t size = 0;
    if (!is_white_space(utf8_decode(text.substr(at), size))) break;
    at += size;
  }
  return at;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(const std::vector<Entry>& entries) : roots_(256, -1) {
  for (const Entry& entry : entries) {
    std::int32_t node = -1;
    for (std::size_t i = 0; i < entry.text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(entry.text[i]);
      const std::int32_t parent = i == 0 ? -1 : node;
      node = i == 0 ? roots_[byte] : child(parent, byte);
      if (node >= 0) continue;
      node = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({byte, -1, parent < 0 ? -1 : nodes_[static_cast<std::size_t>(parent)].first_child, -1});
      if (parent < 0) {
        roots_[byte] = node;
      } else {
        nodes_[static_cast<std::size_t>(parent)].first_child = node;
      }
    }
    std::int32_t& index = nodes_[static_cast<std::size_t>(node)].entry;
    if (index >= 0) continue;
    index = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(entry.token);
  }
}

std::int32_t AddedTokenMatcher::child(std::int32_t node, unsigned char byte) const {
  std::int32_t next = nodes_[static_cast<std::size_t>(node)].first_child;
  while (next >= 0 && nodes_[static_cast<std::size_t>(next)].byte != byte) {
    next = nodes_[static_cast<std::size_t>(next)].next_sibling;
  }
  return next;
}

std::int32_t AddedTokenMatcher::longest_at(std::string_view text, std::size_t at, std::size_t& end) const {
  std::int32_t found = -1;
  std::int32_t node = roots_[static_cast<unsigned char>(text[at])];
  while (node >= 0) {
    ++at;
    const std::int32_t entry = nodes_[static_cast<std::size_t>(node)].entry;
    if (entry >= 0) {
      found = entry;
      end = at;
    }
    if (at == text.size()) break;
    node = child(node, static_cast<unsigned char>(text[at]));
  }
  return found;
}

std::vector<AddedTokenPiece> AddedTokenMatcher::split(std::string_view text) const {
  std::vector<AddedTokenPiece> pieces;
  std::size_t done = 0;
  // The last run of white space looked at, so that tokens inside one long run do not each walk to its end.
  std::size_t run_begin = 1;
  std::size_t run_end = 0;
  const auto end_of_space = [&](std::size_t from) {
    if (from < run_begin || from > run_end) {
      run_begin = from;
      run_end = from + leading_space(text.substr(from));
    }
    return run_end;
  };
  for (std::size_t at = 0; !tokens_.empty() && at < text.size();) {
    std::size_t begin = at;
    std::size_t end = at;
    const std::int32_t entry = longest_at(text, at, end);
    if (entry < 0) {
      ++at;
      continue;
    }
    at = end;  // a match that its conditions reject is used up all the same, as in the library
    const AddedToken& token = tokens_[static_cast<std::size_t>(entry)];
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip && done < begin) begin = done + without_trailing_space(text.substr(done, begin - done));
    if (token.rstrip) end = end_of_space(end);
    if (done < begin) pieces.push_back({-1, done, begin});
    pieces.push_back({token.id, begin, end});
    done = end;
  }
  if (done != text.size()) pieces.push_back({-1, done, text.size()});
  return pieces;
}

}  // namespace lomu
