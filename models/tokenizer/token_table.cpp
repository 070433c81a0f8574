#include "models/tokenizer/token_table.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

void check_entry(std::int32_t id, std::string_view token, const std::string& where) {
  if (!utf8_valid(token)) {
    throw FormatError(fmt::format("token {} is not valid UTF-8: \"{}\"", id, utf8_repair(token)), where);
  }
  if (id < 0 || id > kMaxTokenId) {
    throw FormatError(fmt::format("token \"{}\" has id {}; ids go from 0 to {}", token, id, kMaxTokenId), where);
  }
}

}  // namespace

TokenTable::TokenTable(const BpeSpec& model, const std::vector<AddedToken>& added, const std::string& where) {
  if (model.vocab.empty() && added.empty()) throw FormatError("the vocabulary is empty", where);
  std::int32_t largest = 0;
  std::size_t bytes = 0;
  for (const auto& [token, id] : model.vocab) {
    check_entry(id, token, where);
    largest = std::max(largest, id);
    bytes += token.size();
  }
  for (const AddedToken& token : added) {
    check_entry(token.id, token.content, where);
    largest = std::max(largest, token.id);
    bytes += token.content.size();
  }
  text_.reserve(bytes);
  entries_.resize(static_cast<std::size_t>(largest) + 1);
  slots_.assign(std::bit_ceil(2 * (model.vocab.size() + added.size()) + 2), -1);

  for (const auto& [token, id] : model.vocab) insert(token, id, true, where);
  const auto model_size = static_cast<std::int64_t>(model.vocab.size());
  std::int64_t largest_added = -1;
  for (const AddedToken& token : added) {
    if (token.content.empty()) throw FormatError(fmt::format("added token {} is empty", token.id), where);
    if (const auto known = find(token.content)) {
      if (*known != token.id) {
        throw FormatError(
            fmt::format("added token \"{}\" has id {}, but {} in the vocabulary", token.content, token.id, *known),
            where);
      }
    } else {
      // The library ignores the id in the file and counts on from the vocabulary.
      const std::int64_t next = largest_added >= model_size ? largest_added + 1 : model_size;
      if (token.id != next) {
        throw FormatError(
            fmt::format("added token \"{}\" has id {}, but the next free id is {}", token.content, token.id, next),
            where, "Hugging Face would give it the next free id, whatever the file says; correct the file");
      }
      insert(token.content, token.id, false, where);
    }
    largest_added = std::max<std::int64_t>(largest_added, token.id);
  }
}

std::string_view TokenTable::token(std::int32_t id) const {
  if (!has(id)) return {};
  return std::string_view(text_).substr(entry(id).begin, entry(id).length);
}

std::optional<std::int32_t> TokenTable::find(std::string_view token) const {
  const std::int32_t id = slots_[slot_of(token)];
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::int32_t> TokenTable::find_in_model(std::string_view token) const {
  const auto id = find(token);
  return id && entry(*id).in_model ? id : std::nullopt;
}

void TokenTable::insert(std::string_view token, std::int32_t id, bool in_model, const std::string& where) {
  Entry& entry = entries_[static_cast<std::size_t>(id)];
  if (entry.used) {
    throw FormatError(fmt::format("id {} belongs to two tokens: \"{}\" and \"{}\"", id, this->token(id), token), where);
  }
  std::int32_t& slot = slots_[slot_of(token)];
  if (slot >= 0) {
    throw FormatError(fmt::format("token \"{}\" is listed twice, with ids {} and {}", token, slot, id), where);
  }
  slot = id;
  entry = {text_.size(), static_cast<std::uint32_t>(token.size()), true, in_model};
  text_ += token;
}

// The slot that holds the token, or the empty one where it would go. There is always an empty one: at most half are
// used.
std::size_t TokenTable::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = XXH3_64bits(token.data(), token.size()) & mask;
  while (slots_[slot] >= 0 && this->token(slots_[slot]) != token) slot = (slot + 1) & mask;
  return slot;
}

}  // namespace lomu
