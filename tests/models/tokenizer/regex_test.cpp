#include "models/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/error.h"
#include "models/tokenizer/regex_translation.h"

namespace lomu {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  const Regex regex = Regex::from_oniguruma(pattern);
  RegexScratch scratch;
  std::vector<ByteRange> ranges;
  regex.find_all(text, scratch, ranges);
  std::vector<std::string> result;
  for (const ByteRange& range : ranges) result.emplace_back(text.substr(range.begin, range.end - range.begin));
  return result;
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_THAT(matches(R"(\s+)", "a\u00a0\u2003b\u180ec"), ElementsAre("\u00a0\u2003"));  // U+180E is no space
  EXPECT_THAT(matches(R"([^\S\n]+)", " \t\n\u3000"), ElementsAre(" \t", "\u3000"));
  EXPECT_THAT(matches(R"(\p{L}+)", "aé\U000105C0x1"), ElementsAre("aé\U000105C0x"));  // a letter of Unicode 16
  EXPECT_THAT(matches(R"(\P{L})", "a\U000105C0-"), ElementsAre("-"));
  EXPECT_THAT(matches(R"(\p{^L})", "a-"), ElementsAre("-"));
  EXPECT_THAT(matches(R"(\d)", "1²٣"), ElementsAre("1", "٣"));
  EXPECT_THAT(matches(R"((?i:'s|'t))", "'S'T'ſ"), ElementsAre("'S", "'T", "'ſ"));
  EXPECT_THAT(matches(R"(a{,2}b)", "aaab"), ElementsAre("aab"));
  EXPECT_THAT(matches(R"((?:ab){1,2}+c)", "ababababc"), ElementsAre("ababababc"));  // the interval repeats
  EXPECT_THAT(matches(R"(a++b)", "aab"), ElementsAre("aab"));
  EXPECT_THAT(matches(R"(\u4e00|\x{4e01}|\x41|\v)", "一丁A\v\n"), ElementsAre("一", "丁", "A", "\v"));
  EXPECT_THAT(matches(R"(^a|b$)", "a\na\nb\nb"), ElementsAre("a", "a", "b", "b"));  // lines, always
  EXPECT_THAT(matches(R"([!"#\[\\\]-]+)", "[]\\!-x"), ElementsAre("[]\\!-"));
  EXPECT_THAT(matches(R"([一-龥]+)", "漢字x"), ElementsAre("漢字"));
  EXPECT_THAT(matches(R"([^a[b-d]e]+)", "abcxyze"), ElementsAre("xyz"));  // an inner class adds to the outer one
  EXPECT_THAT(matches(R"(x{)", "x{"), ElementsAre("x{"));
}

TEST(Regex, AnEmptyMatchAfterAnotherIsSkipped) {
  EXPECT_THAT(matches("a*", "baac"), ElementsAre("", "aa", ""));
}

TEST(Regex, ALiteralIsNoPattern) {
  const Regex regex = Regex::from_literal("a.b*é\n");
  RegexScratch scratch;
  std::vector<ByteRange> ranges;
  regex.find_all("xxa.b*é\nxa.bb*", scratch, ranges);
  EXPECT_THAT(ranges, ElementsAre(ByteRange{2, 9}));
}

TEST(Regex, RefusesByNameWhatItDoesNotTranslate) {
  for (const char* pattern :
       {R"(\w+)",   R"(\bx)", R"([a[^b]])", R"([[:alpha:]])", R"([a-z&&[^b]])", R"(\p{Han})", R"((?<n>a))", R"((?m:a))",
        R"(a{2}?)", R"(\1)",  R"([\P{L}])", R"(a(?i)b)",      R"((?i:ss))",     R"((?i:é))",  R"(*a)",      R"((a)",
        R"(a))",    R"([a)",  R"(\)",       R"(\p{L)",        R"([z-a])",       R"(\xFF)",    R"(\ud800)"}) {
    EXPECT_THROW(translate_oniguruma(pattern), UnsupportedError) << pattern;
  }
}

TEST(Regex, APatternThatBacktracksWithoutEndIsAnError) {
  EXPECT_THROW(matches(R"((?:a|a)+[bc])", std::string(200, 'a')), FormatError);
}

}  // namespace
}  // namespace lomu
