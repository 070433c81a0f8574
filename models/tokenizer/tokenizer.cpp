#include "models/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "kernels/error.h"
#include "models/files/hashing.h"
#include "models/tokenizer/added_tokens.h"
#include "models/tokenizer/aligned_text.h"
#include "models/tokenizer/bpe.h"
#include "models/tokenizer/decoder.h"
#include "models/tokenizer/fingerprint.h"
#include "models/tokenizer/normalizer.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/token_table.h"
#include "models/tokenizer/tokenizer_json.h"
#include "models/tokenizer/tokenizer_spec.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// Positions inside a word are 32 bits wide.
constexpr std::size_t kLongestText = std::size_t{1} << 31;

struct Scratch {
  RegexScratch regex;
  BpeScratch bpe;
  std::vector<ByteRange> words;
};

// Scratch memory for as many threads as encode at once; each brings its word cache along.
class ScratchPool {
 public:
  class Lease {
   public:
    Lease(ScratchPool& pool, std::unique_ptr<Scratch> scratch) : pool_(pool), scratch_(std::move(scratch)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { pool_.give_back(std::move(scratch_)); }
    Scratch& operator*() const { return *scratch_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<Scratch> scratch_;
  };

  Lease lease() {
    {
      const std::scoped_lock lock(mutex_);
      if (!idle_.empty()) {
        auto scratch = std::move(idle_.back());
        idle_.pop_back();
        return {*this, std::move(scratch)};
      }
      idle_.reserve(++made_);  // so that giving back cannot fail
    }
    return {*this, std::make_unique<Scratch>()};
  }

 private:
  void give_back(std::unique_ptr<Scratch> scratch) {
    const std::scoped_lock lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> idle_;
  std::size_t made_ = 0;
};

// Invalid bytes become U+FFFD, which remembers the bytes it stands for.
AlignedText repair(AlignedText text) {
  if (utf8_valid(text.text())) return text;
  AlignedText::Builder builder(text);
  const std::string_view bytes = text.text();
  for (std::size_t at = 0; at < bytes.size();) {
    const Utf8Lead lead = utf8_lead(bytes.substr(at));
    if (lead.valid) {
      builder.copy(at, at + lead.size);
    } else {
      builder.replace(kReplacementCharacter, at, at + lead.size);
    }
    at += lead.size;
  }
  return std::move(builder).finish();
}

AddedTokenMatcher make_matcher(const TokenizerSpec& spec, const Normalizer& normalizer, bool normalized) {
  RegexScratch scratch;
  std::vector<AddedTokenMatcher::Entry> entries;
  for (const bool special : {true, false}) {  // the library's order, which decides between equal texts
    for (const AddedToken& token : spec.added_tokens) {
      if (token.special != special || token.normalized != normalized) continue;
      std::string text = normalized ? normalizer.normalize(token.content, scratch) : token.content;
      if (!text.empty()) entries.push_back({std::move(text), token});
    }
  }
  return AddedTokenMatcher(entries);
}

std::vector<TokenSpan> apply_template(const TemplateStep& step, std::vector<TokenSpan> tokens, std::size_t text_size) {
  std::vector<TokenSpan> result;
  std::size_t at = 0;
  for (const auto& piece : step) {
    if (!piece) {
      result.insert(result.end(), tokens.begin(), tokens.end());
      at = text_size;
      continue;
    }
    for (const std::int32_t id : *piece) result.push_back({id, at, at});
  }
  return result;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerSpec spec, const std::string& where)
      : table(spec.model, spec.added_tokens, where),
        normalizer(spec.normalizers),
        raw_matcher(make_matcher(spec, normalizer, false)),
        normalized_matcher(make_matcher(spec, normalizer, true)),
        pre_tokenizer(spec.pre_tokenizers),
        bpe(spec.model, table, pre_tokenizer.byte_level(), where),
        decoder(spec.decoders),
        post_processors(std::move(spec.post_processors)),
        bos(spec.bos),
        eos(spec.eos),
        pad(spec.pad),
        chat_template(std::move(spec.chat_template)) {
    check_ids(where);
    RegexScratch scratch;
    for (const AddedToken& token : spec.added_tokens) {
      if (token.special) special.insert(token.id);
      if (!token.normalized) continue;
      std::string normal = normalizer.normalize(token.content, scratch);
      if (normal != token.content) respelled.emplace(token.id, std::move(normal));
    }
    for (std::int64_t id = 0; id < table.size(); ++id) {
      byte_begins.push_back(token_bytes.size());
      if (table.has(id)) token_bytes += decoder.bytes_of(decoded_spelling(static_cast<std::int32_t>(id)), scratch);
    }
    byte_begins.push_back(token_bytes.size());
  }

  void check_ids(const std::string& where) const {
    const auto check = [&](std::int32_t id, std::string_view use) {
      if (!table.has(id)) {
        throw FormatError(fmt::format("the {} is id {}, which is not in the vocabulary", use, id), where);
      }
    };
    if (bos) check(*bos, "BOS token");
    if (eos) check(*eos, "EOS token");
    if (pad) check(*pad, "padding token");
    for (const TemplateStep& step : post_processors) {
      for (const auto& piece : step) {
        if (!piece) continue;
        for (const std::int32_t id : *piece) check(id, "token the post-processor adds");
      }
    }
  }

  // What decode starts from. The library decodes a normalized added token as its normal form.
  [[nodiscard]] std::string_view decoded_spelling(std::int32_t id) const {
    const auto it = respelled.find(id);
    return it == respelled.end() ? table.token(id) : std::string_view(it->second);
  }

  void encode_words(AlignedText text, Scratch& scratch, std::vector<TokenSpan>& out) const {
    pre_tokenizer.run(text, scratch.regex, scratch.words);
    for (const ByteRange& word : scratch.words) {
      for (const WordToken& token : bpe.encode(text.text().substr(word.begin, word.end - word.begin), scratch.bpe)) {
        out.push_back({token.id, text.origin(word.begin + token.begin), text.origin(word.begin + token.end)});
      }
    }
  }

  [[nodiscard]] std::vector<TokenSpan> encode(std::string_view bytes, bool add_special_tokens) const {
    if (bytes.size() > kLongestText) {
      throw FormatError(fmt::format("a text of {} bytes is too long for one piece", bytes.size()), {},
                        "split it at line ends");
    }
    const ScratchPool::Lease lease = scratch_pool.lease();
    Scratch& scratch = *lease;
    std::vector<TokenSpan> out;
    out.reserve(bytes.size() / 3 + 4);
    const AlignedText whole = repair(AlignedText(bytes, 0));
    for (const AddedTokenPiece& piece : raw_matcher.split(whole.text())) {
      if (piece.id >= 0) {
        out.push_back({piece.id, whole.origin(piece.begin), whole.origin(piece.end)});
        continue;
      }
      const AlignedText part = normalizer.normalize(whole.slice(piece.begin, piece.end), scratch.regex);
      for (const AddedTokenPiece& inner : normalized_matcher.split(part.text())) {
        if (inner.id >= 0) {
          out.push_back({inner.id, part.origin(inner.begin), part.origin(inner.end)});
        } else {
          encode_words(part.slice(inner.begin, inner.end), scratch, out);
        }
      }
    }
    if (!add_special_tokens) return out;
    for (const TemplateStep& step : post_processors) out = apply_template(step, std::move(out), bytes.size());
    return out;
  }

  TokenTable table;
  Normalizer normalizer;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  PreTokenizer pre_tokenizer;
  BpeModel bpe;
  Decoder decoder;
  std::vector<TemplateStep> post_processors;
  std::optional<std::int32_t> bos, eos, pad;
  std::string chat_template;
  std::unordered_set<std::int32_t> special;
  std::unordered_map<std::int32_t, std::string> respelled;  // added tokens that their normalizer changes
  std::string token_bytes;                                  // of all tokens, one after the other
  std::vector<std::size_t> byte_begins;
  std::uint64_t fingerprint = 0;
  bool adds_bos = false;
  mutable ScratchPool scratch_pool;
};

namespace {

// Patterns do not know the file they come from.
template <class Make>
auto name_file_in_errors(const std::string& where, const Make& make) {
  try {
    return make();
  } catch (const UnsupportedError& error) {
    if (!error.where().empty()) throw;
    throw UnsupportedError(error.what(), where, error.hint());
  } catch (const FormatError& error) {
    if (!error.where().empty()) throw;
    throw FormatError(error.what(), where, error.hint());
  }
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& model) {
  return Tokenizer(read_tokenizer_spec(model), model.string());
}

Tokenizer::Tokenizer(TokenizerSpec spec, const std::string& where) {
  const std::uint64_t fingerprint = fingerprint_of(spec);
  auto impl = name_file_in_errors(where, [&] { return std::make_shared<Impl>(std::move(spec), where); });
  impl->fingerprint = fingerprint;
  const auto around_nothing = impl->encode({}, true);
  impl->adds_bos = impl->bos && !around_nothing.empty() && around_nothing.front().id == *impl->bos;
  impl_ = std::move(impl);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  const auto spans = impl_->encode(text, add_special_tokens);
  std::vector<std::int32_t> ids(spans.size());
  std::transform(spans.begin(), spans.end(), ids.begin(), [](const TokenSpan& span) { return span.id; });
  return ids;
}

std::vector<TokenSpan> Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens) const {
  return impl_->encode(text, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const std::int32_t id : ids) {
    // The library looks special tokens up by their spelling, and so overlooks those that are respelled.
    const bool skip = skip_special_tokens && is_special(id) && !impl_->respelled.contains(id);
    if (impl_->table.has(id) && !skip) tokens.emplace_back(impl_->decoded_spelling(id));
  }
  const ScratchPool::Lease lease = impl_->scratch_pool.lease();
  return impl_->decoder.decode(std::move(tokens), (*lease).regex);
}

std::string_view Tokenizer::bytes_of(std::int32_t id) const {
  if (!impl_->table.has(id)) return {};
  const auto i = static_cast<std::size_t>(id);
  const std::size_t begin = impl_->byte_begins[i];
  return std::string_view(impl_->token_bytes).substr(begin, impl_->byte_begins[i + 1] - begin);
}

std::string_view Tokenizer::token_of(std::int32_t id) const {
  return impl_->table.token(id);
}
std::int64_t Tokenizer::vocab_size() const {
  return impl_->table.size();
}
std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  return impl_->table.find(token);
}
bool Tokenizer::is_special(std::int32_t id) const {
  return impl_->special.contains(id);
}
std::optional<std::int32_t> Tokenizer::bos() const {
  return impl_->bos;
}
std::optional<std::int32_t> Tokenizer::eos() const {
  return impl_->eos;
}
std::optional<std::int32_t> Tokenizer::pad() const {
  return impl_->pad;
}
bool Tokenizer::adds_bos() const {
  return impl_->adds_bos;
}
std::string_view Tokenizer::chat_template() const {
  return impl_->chat_template;
}
std::uint64_t Tokenizer::fingerprint() const {
  return impl_->fingerprint;
}

}  // namespace lomu
