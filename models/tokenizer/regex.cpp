#include "models/tokenizer/regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <new>

#include "kernels/error.h"
#include "models/tokenizer/regex_translation.h"
#include "models/tokenizer/utf8.h"

namespace lomu {
namespace {

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

template <class T>
Owned<T> own(T* p) {
  if (p == nullptr) throw std::bad_alloc();
  return Owned<T>(p);
}

// Room for backtracking into groups; single-character repeats, the usual case, need none.
constexpr std::size_t kJitStackStart = 32 * 1024;
constexpr std::size_t kJitStackMax = 8 * 1024 * 1024;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct RegexScratch::Impl {
  Owned<pcre2_match_context> context = own(pcre2_match_context_create(nullptr));
  Owned<pcre2_match_data> data = own(pcre2_match_data_create(1, nullptr));
  Owned<pcre2_jit_stack> jit_stack;  // null on a build of PCRE2 without the compiler

  Impl() : jit_stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    if (jit_stack) pcre2_jit_stack_assign(context.get(), nullptr, jit_stack.get());
  }
};

RegexScratch::RegexScratch() : impl_(std::make_unique<Impl>()) {}
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;
RegexScratch& RegexScratch::operator=(RegexScratch&&) noexcept = default;
RegexScratch::~RegexScratch() = default;

struct Regex::Impl {
  Owned<pcre2_code> code;
  std::string source;  // as given, for messages

  Impl(const std::string& pattern, std::string_view given) : source(given) {
    const auto context = own(pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    std::size_t offset = 0;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get()));
    if (!code) throw FormatError(fmt::format("not a regular expression: {} (\"{}\")", pcre2_message(error), source));
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
  }
};

Regex::Regex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Regex Regex::from_oniguruma(std::string_view pattern) {
  return Regex(std::make_unique<Impl>(translate_oniguruma(pattern), pattern));
}

Regex Regex::from_literal(std::string_view text) {
  return Regex(std::make_unique<Impl>(regex_of_literal(text), text));
}

void Regex::find_all(std::string_view text, RegexScratch& scratch, std::vector<ByteRange>& matches) const {
  pcre2_match_data* data = scratch.impl_->data.get();
  const auto match_from = [&](std::size_t start) {
    const auto run = [&](std::uint32_t options) {
      return pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start, options,
                         data, scratch.impl_->context.get());
    };
    const int result = run(PCRE2_NO_UTF_CHECK);
    // The interpreter keeps its state on the heap and gets further.
    return result == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT) : result;
  };

  std::size_t start = 0;
  bool matched_before = false;
  std::size_t last_end = 0;
  while (start <= text.size()) {
    const int result = match_from(start);
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      throw FormatError(
          fmt::format("the tokenizer's pattern \"{}\" gives up on this text: {}", impl_->source, pcre2_message(result)),
          fmt::format("byte {} of a piece of {}", start, text.size()),
          "the text has a run that this pattern can match in too many ways; shorten it");
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
    const ByteRange match{bounds[0], bounds[1]};
    if (match.begin == match.end && matched_before && match.end == last_end) {
      start += start < text.size() ? utf8_lead(text.substr(start)).size : 1;
      continue;
    }
    matches.push_back(match);
    matched_before = true;
    last_end = match.end;
    start = match.end;
  }
}

}  // namespace lomu
