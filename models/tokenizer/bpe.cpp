#include "models/tokenizer/bpe.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "kernels/error.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Longer words are rare and seldom come twice.
constexpr std::size_t kLongestCachedWord = 128;
// About 10 MB when full; ordinary text has fewer different words than this for a long time.
constexpr std::size_t kCachedWords = std::size_t{1} << 16;

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

// Fibonacci hashing: the high bits of the product are well mixed.
std::size_t slot_hash(std::uint64_t key) {
  return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15U) >> 20);
}

}  // namespace

std::size_t WordCache::Hash::operator()(std::string_view text) const {
  return XXH3_64bits(text.data(), text.size());
}

const std::vector<WordToken>* WordCache::find(std::string_view word) const {
  if (word.size() > kLongestCachedWord) return nullptr;
  const auto it = words_.find(word);
  return it == words_.end() ? nullptr : &it->second;
}

void WordCache::put(std::string_view word, std::span<const WordToken> tokens) {
  if (word.size() > kLongestCachedWord) return;
  if (words_.size() >= kCachedWords) words_.clear();
  words_.emplace(word, std::vector<WordToken>(tokens.begin(), tokens.end()));
}

BpeModel::BpeModel(const BpeSpec& spec, const TokenTable& tokens, bool byte_level, const std::string& where)
    : tokens_(&tokens),
      byte_level_(byte_level),
      fuse_unk_(spec.fuse_unk),
      byte_fallback_(spec.byte_fallback),
      ignore_merges_(spec.ignore_merges) {
  if (spec.unk_token) {
    const auto id = tokens.find_in_model(*spec.unk_token);
    if (!id)
      throw FormatError(fmt::format("the unknown token \"{}\" is not in the vocabulary", *spec.unk_token), where);
    unk_ = *id;
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    byte_tokens_[byte] = tokens.find_in_model(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
  if (byte_level_) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      byte_starts_[byte] = start_of(alphabet_.spelling(static_cast<unsigned char>(byte)));
    }
  }
  add_merges(spec, where);
}

void BpeModel::add_merges(const BpeSpec& spec, const std::string& where) {
  merges_.resize(std::bit_ceil(2 * spec.merges.size() + 2));
  const std::size_t mask = merges_.size() - 1;
  std::string joined;
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    joined.assign(left).append(right);
    const auto known = [&](const std::string& token) {
      const auto id = tokens_->find_in_model(token);
      if (!id) {
        throw FormatError(
            fmt::format("merge {} joins \"{}\" and \"{}\", but the vocabulary lacks \"{}\"", rank, left, right, token),
            where);
      }
      return *id;
    };
    const std::uint64_t key = pair_key(known(left), known(right));
    std::size_t slot = slot_hash(key) & mask;
    while (merges_[slot].id >= 0 && merges_[slot].pair != key) slot = (slot + 1) & mask;
    merges_[slot] = {key, static_cast<std::uint32_t>(rank), known(joined)};  // of equal pairs the last one counts
  }
}

const BpeModel::Merge* BpeModel::find_merge(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t slot = slot_hash(key) & mask;; slot = (slot + 1) & mask) {
    const Merge& merge = merges_[slot];
    if (merge.id < 0) return nullptr;
    if (merge.pair == key) return &merge;
  }
}

BpeModel::Start BpeModel::start_of(std::string_view character) const {
  if (const auto id = tokens_->find_in_model(character)) return {*id, {}};
  if (!byte_fallback_) return {};
  Start start;
  for (const char byte : character) {
    const std::int32_t id = byte_tokens_[static_cast<unsigned char>(byte)];
    if (id < 0) return {};
    start.fallback.push_back(id);
  }
  return start;
}

void BpeModel::split_characters(std::string_view word, std::vector<BpeScratch::Node>& nodes) const {
  nodes.clear();
  const auto put = [&](std::int32_t id, std::size_t begin, std::size_t end) {
    nodes.push_back({id, -1, -1, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
  };
  // The unknown token waits until it is clear that the next character does not belong to it. As in the library,
  // characters that fall back to bytes do not end the wait.
  bool unknown = false;
  std::size_t unknown_begin = 0;
  std::size_t unknown_end = 0;
  const auto flush_unknown = [&] {
    if (unknown) put(unk_, unknown_begin, unknown_end);
    unknown = false;
  };
  const auto put_character = [&](const Start& start, std::size_t begin, std::size_t end) {
    if (start.id >= 0) {
      flush_unknown();
      return put(start.id, begin, end);
    }
    if (!start.fallback.empty()) {
      for (std::size_t k = 0; k < start.fallback.size(); ++k) {
        put(start.fallback[k], std::min(begin + k, end), std::min(begin + k + 1, end));
      }
      return;
    }
    if (unk_ < 0) return;
    if (!fuse_unk_) flush_unknown();
    if (!unknown) unknown_begin = begin;
    unknown = true;
    unknown_end = end;
  };
  if (byte_level_) {
    for (std::size_t i = 0; i < word.size(); ++i) {
      put_character(byte_starts_[static_cast<unsigned char>(word[i])], i, i + 1);
    }
  } else {
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t size = utf8_lead(word.substr(at)).size;
      put_character(start_of(word.substr(at, size)), at, at + size);
      at += size;
    }
  }
  flush_unknown();
}

void BpeModel::merge_all(BpeScratch& scratch) const {
  auto& nodes = scratch.nodes;
  auto& heap = scratch.heap;
  heap.clear();
  const auto node = [&](std::int32_t i) -> BpeScratch::Node& { return nodes[static_cast<std::size_t>(i)]; };
  // The best merge has the lowest rank; of equal ranks the leftmost goes first.
  const auto worse = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto consider = [&](std::int32_t left) {
    if (left < 0 || node(left).next < 0) return false;
    const Merge* merge = find_merge(node(left).id, node(node(left).next).id);
    if (merge != nullptr) heap.push_back({merge->rank, left, merge->id});
    return merge != nullptr;
  };
  const auto consider_later = [&](std::int32_t left) {
    if (consider(left)) std::push_heap(heap.begin(), heap.end(), worse);
  };

  const auto count = static_cast<std::int32_t>(nodes.size());
  for (std::int32_t i = 0; i < count; ++i) {
    node(i).previous = i - 1;
    node(i).next = i + 1 < count ? i + 1 : -1;
  }
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), worse);

  constexpr std::int32_t kJoined = -2;  // id of a node that became part of its left neighbour
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), worse);
    const BpeScratch::Candidate best = heap.back();
    heap.pop_back();
    BpeScratch::Node& left = node(best.position);
    if (left.id == kJoined || left.next < 0) continue;
    BpeScratch::Node& right = node(left.next);
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;  // the pair has changed since
    left.id = best.id;
    left.end = right.end;
    left.next = right.next;
    right.id = kJoined;
    if (left.next >= 0) node(left.next).previous = best.position;
    consider_later(left.previous);
    consider_later(best.position);
  }
  std::erase_if(nodes, [](const BpeScratch::Node& n) { return n.id == kJoined; });
}

std::span<const WordToken> BpeModel::encode(std::string_view word, BpeScratch& scratch) const {
  if (const auto* known = scratch.cache.find(word)) return *known;
  auto& tokens = scratch.tokens;
  tokens.clear();
  if (ignore_merges_) {
    const auto whole = tokens_->find_in_model(byte_level_ ? alphabet_.spell(word) : word);
    if (whole) tokens.push_back({*whole, 0, static_cast<std::uint32_t>(word.size())});
  }
  if (tokens.empty()) {
    split_characters(word, scratch.nodes);
    merge_all(scratch);
    for (const BpeScratch::Node& node : scratch.nodes) tokens.push_back({node.id, node.begin, node.end});
  }
  scratch.cache.put(word, tokens);
  return tokens;
}

}  // namespace lomu
