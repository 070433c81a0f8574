// Rewrites the regular expressions of tokenizer.json, which are Oniguruma's, so that PCRE2 (UTF, UCP, MULTILINE) means
// the same.
//
// They agree on most, but: PCRE2 counts U+180E to \s; its Unicode is older, so that \p{L} and its like miss new
// characters; \v, {,n}, {n,m}+, an inner [ and && mean other things. Known constructs are rewritten, whatever is not
// known is refused.
#pragma once

#include <string>
#include <string_view>

namespace lomu {

/// `pattern`: valid UTF-8. Throws UnsupportedError that names the construct and its place.
std::string translate_oniguruma(std::string_view pattern);

/// A literal text as a pattern.
std::string regex_of_literal(std::string_view text);

}  // namespace lomu
