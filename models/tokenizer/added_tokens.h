// Finds added tokens ("<|im_start|>") in a text before the model sees it: leftmost first, the longest of those that
// begin at the same place, and then the conditions and white space that each token asks for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// A part of a text: a token found, or (id -1) what lies between tokens.
struct AddedTokenPiece {
  std::int32_t id;
  std::size_t begin, end;
};

class AddedTokenMatcher {
 public:
  struct Entry {
    std::string text;  ///< what to look for; not empty
    AddedToken token;
  };

  /// Of entries with the same text the first counts.
  explicit AddedTokenMatcher(const std::vector<Entry>& entries);

  /// Cuts valid UTF-8 into pieces that cover it; none is empty.
  [[nodiscard]] std::vector<AddedTokenPiece> split(std::string_view text) const;

 private:
  // A trie in vectors: edges of a node are a chain of siblings, short because added tokens are few.
  struct Node {
    unsigned char byte = 0;
    std::int32_t first_child = -1, next_sibling = -1;
    std::int32_t entry = -1;  // index into tokens_
  };

  [[nodiscard]] std::int32_t child(std::int32_t node, unsigned char byte) const;
  /// The longest entry that begins at `at`: its index and where it ends, or -1.
  [[nodiscard]] std::int32_t longest_at(std::string_view text, std::size_t at, std::size_t& end) const;

  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
  std::vector<std::int32_t> roots_;  // by first byte; -1: no entry begins with it
};

}  // namespace lomu
