// The vocabulary: ids and spellings, both ways. One table for the model's tokens and for added ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/tokenizer_spec.h"

namespace lomu {

class TokenTable {
 public:
  /// Throws FormatError for ids that are negative, larger than kMaxTokenId or used twice, for a token listed twice, and
  /// for an added token whose id is not the one the tokenizers library would give it.
  TokenTable(const BpeSpec& model, const std::vector<AddedToken>& added, const std::string& where);

  [[nodiscard]] std::int64_t size() const {
    return static_cast<std::int64_t>(entries_.size());
  }  ///< 1 + the largest id
  /// Whether a token has this id; ids need not be dense.
  [[nodiscard]] bool has(std::int64_t id) const { return id >= 0 && id < size() && entry(id).used; }
  [[nodiscard]] std::string_view token(std::int32_t id) const;

  [[nodiscard]] std::optional<std::int32_t> find(std::string_view token) const;
  /// Only among the tokens of the model, not the added ones.
  [[nodiscard]] std::optional<std::int32_t> find_in_model(std::string_view token) const;

 private:
  struct Entry {
    std::uint64_t begin = 0;
    std::uint32_t length = 0;
    bool used = false;
    bool in_model = false;
  };

  [[nodiscard]] const Entry& entry(std::int64_t id) const { return entries_[static_cast<std::size_t>(id)]; }
  void insert(std::string_view token, std::int32_t id, bool in_model, const std::string& where);
  [[nodiscard]] std::size_t slot_of(std::string_view token) const;

  std::string text_;  // all spellings, one after the other
  std::vector<Entry> entries_;
  std::vector<std::int32_t> slots_;  // open addressing by hash of the spelling; -1: empty
};

}  // namespace lomu
