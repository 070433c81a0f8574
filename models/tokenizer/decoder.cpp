#include "models/tokenizer/decoder.h"

#include <optional>

#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

// The byte that a token like "<0x0A>" stands for. The library takes any six bytes "<0x..>" whose middle Rust reads as
// hexadecimal, which allows a plus sign in front of one digit.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]);
  const int low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

std::vector<std::string> join_fallback_bytes(const std::vector<std::string>& tokens) {
  std::vector<std::string> result;
  std::string bytes;
  const auto flush = [&] {
    if (utf8_valid(bytes)) {
      if (!bytes.empty()) result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), std::string(kReplacementCharacter));
    }
    bytes.clear();
  };
  for (const std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes.push_back(*byte);
      continue;
    }
    flush();
    result.push_back(token);
  }
  flush();
  return result;
}

std::string strip(const std::string& token, const StripDecoder& step) {
  std::string_view rest = token;
  for (std::int64_t i = 0; i < step.start && rest.starts_with(step.content); ++i)
    rest.remove_prefix(step.content.size());
  for (std::int64_t i = 0; i < step.stop && rest.ends_with(step.content); ++i) rest.remove_suffix(step.content.size());
  return std::string(rest);
}

std::string replace_text(std::string_view text, std::string_view what, std::string_view with) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t hit = std::min(text.find(what, at), text.size());
    result.append(text.substr(at, hit - at));
    if (hit < text.size()) result.append(with);
    at = hit + what.size();
  }
  return result;
}

std::string replace_matches(std::string_view text, const Regex& pattern, std::string_view with, RegexScratch& scratch) {
  std::vector<ByteRange> matches;
  pattern.find_all(text, scratch, matches);
  std::string result;
  std::size_t done = 0;
  for (const ByteRange& match : matches) {
    result.append(text.substr(done, match.begin - done)).append(with);
    done = match.end;
  }
  return result.append(text.substr(done));
}

std::string concatenate(const std::vector<std::string>& tokens, std::string_view separator = {}) {
  std::string text;
  for (const std::string& token : tokens) {
    if (&token != &tokens.front()) text += separator;
    text += token;
  }
  return text;
}

}  // namespace

Decoder::Decoder(const std::vector<DecoderStep>& steps) {
  for (const DecoderStep& step : steps) {
    std::visit(
        [&](const auto& s) {
          if constexpr (std::is_same_v<std::decay_t<decltype(s)>, ReplaceDecoder>) {
            Regex pattern =
                s.pattern.is_regex ? Regex::from_oniguruma(s.pattern.text) : Regex::from_literal(s.pattern.text);
            steps_.emplace_back(Replace{std::move(pattern), s.content});
          } else {
            steps_.emplace_back(s);
          }
        },
        step);
  }
}

std::string Decoder::unspell(std::string_view token) const {
  // A token with a character outside the alphabet is an added one, written as it is.
  return alphabet_.bytes_of(token).value_or(std::string(token));
}

std::vector<std::string> Decoder::apply(const Step& step, std::vector<std::string> tokens,
                                        RegexScratch& scratch) const {
  if (std::holds_alternative<ByteLevelDecoder>(step)) {
    std::string bytes;
    for (const std::string& token : tokens) bytes += unspell(token);
    return {utf8_repair(bytes)};
  }
  if (std::holds_alternative<ByteFallbackDecoder>(step)) return join_fallback_bytes(tokens);
  if (std::holds_alternative<FuseDecoder>(step)) return {concatenate(tokens)};
  for (std::string& token : tokens) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      token = replace_matches(token, replace->pattern, replace->content, scratch);
    } else if (const auto* strip_step = std::get_if<StripDecoder>(&step)) {
      token = strip(token, *strip_step);
    } else {
      const auto& metaspace = std::get<MetaspaceDecoder>(step);
      const bool drop = &token == &tokens.front() && metaspace.prepend != PrependScheme::kNever;
      token = replace_text(token, metaspace.replacement, drop ? "" : " ");
    }
  }
  return tokens;
}

std::string Decoder::decode(std::vector<std::string> tokens, RegexScratch& scratch) const {
  if (steps_.empty()) return concatenate(tokens, " ");
  for (const Step& step : steps_) tokens = apply(step, std::move(tokens), scratch);
  return concatenate(tokens);
}

std::string Decoder::bytes_of(std::string_view token, RegexScratch& scratch) const {
  std::string bytes(token);
  for (const Step& step : steps_) {
    if (std::holds_alternative<ByteLevelDecoder>(step)) {
      bytes = unspell(bytes);
    } else if (std::holds_alternative<ByteFallbackDecoder>(step)) {
      if (const auto byte = fallback_byte(bytes)) return std::string(1, *byte);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      bytes = replace_matches(bytes, replace->pattern, replace->content, scratch);
    } else if (const auto* metaspace = std::get_if<MetaspaceDecoder>(&step)) {
      bytes = replace_text(bytes, metaspace->replacement, " ");
    }
    // Fuse and Strip concern the sequence as a whole: its first token may lose a space, which a stream has to see to
    // itself.
  }
  return bytes;
}

}  // namespace lomu
