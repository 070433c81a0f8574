// Byte pair encoding of one word: start from its characters, join the pair with the best merge until none is left.
// O(n log n) in the length of the word. Words seen before come from a cache.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/tokenizer/byte_alphabet.h"
#include "models/tokenizer/token_table.h"
#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

/// A token of a word and the bytes of the word it covers. Bytes that no token covers (no such character in the
/// vocabulary, no unknown token) belong to none.
struct WordToken {
  std::int32_t id;
  std::uint32_t begin, end;
};

/// Words already encoded. Bounded; one a thread.
class WordCache {
 public:
  /// The tokens of a word, or nothing if it is not known.
  [[nodiscard]] const std::vector<WordToken>* find(std::string_view word) const;
  void put(std::string_view word, std::span<const WordToken> tokens);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const;
  };
  std::unordered_map<std::string, std::vector<WordToken>, Hash, std::equal_to<>> words_;
};

/// What encoding needs to write; one a thread.
struct BpeScratch {
  struct Node {
    std::int32_t id, previous, next;  // positions in the list; -1: none
    std::uint32_t begin, end;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;  // of its left node
    std::int32_t id;        // of the token it would make
  };
  std::vector<Node> nodes;
  std::vector<Candidate> heap;
  std::vector<WordToken> tokens;
  WordCache cache;
};

class BpeModel {
 public:
  /// `tokens` must outlive this. `byte_level`: characters are the bytes of a word, spelled in the byte alphabet. Throws
  /// FormatError for merges of tokens, or into tokens, that the vocabulary lacks.
  BpeModel(const BpeSpec& spec, const TokenTable& tokens, bool byte_level, const std::string& where);

  /// The tokens of one word, which must not be empty. Valid until the next call with this scratch.
  std::span<const WordToken> encode(std::string_view word, BpeScratch& scratch) const;

 private:
  struct Merge {
    std::uint64_t pair = 0;
    std::uint32_t rank = 0;
    std::int32_t id = -1;  // -1: an empty slot
  };

  // How a character begins, before any merge.
  struct Start {
    std::int32_t id = -1;                // the token of the character itself
    std::vector<std::int32_t> fallback;  // else these, one for each of its bytes; if empty, the unknown token
  };

  void add_merges(const BpeSpec& spec, const std::string& where);
  [[nodiscard]] const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  [[nodiscard]] Start start_of(std::string_view character) const;
  void split_characters(std::string_view word, std::vector<BpeScratch::Node>& nodes) const;
  void merge_all(BpeScratch& scratch) const;

  const TokenTable* tokens_;
  ByteAlphabet alphabet_;
  std::vector<Merge> merges_;  // open addressing by pair
  std::array<Start, 256> byte_starts_;
  std::array<std::int32_t, 256> byte_tokens_;  // "<0x0A>": -1 where there is none
  std::int32_t unk_ = -1;
  bool byte_level_, fuse_unk_, byte_fallback_, ignore_merges_;
};

}  // namespace lomu
