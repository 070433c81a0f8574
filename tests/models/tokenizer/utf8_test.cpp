#include "models/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace lomu {
namespace {

const std::string kBad(kReplacementCharacter);

TEST(Utf8, RepairReplacesEachMaximalIllFormedPart) {
  EXPECT_EQ(utf8_repair("plain é 漢 😀"), "plain é 漢 😀");
  EXPECT_EQ(utf8_repair("a\xFFz"), "a" + kBad + "z");
  EXPECT_EQ(utf8_repair("\xC0\x80"), kBad + kBad);             // overlong
  EXPECT_EQ(utf8_repair("\xED\xA0\x80"), kBad + kBad + kBad);  // a surrogate
  EXPECT_EQ(utf8_repair("\xF0\x9F\x98"), kBad);                // one character cut short
  EXPECT_EQ(utf8_repair("\xF0\x9F\x98z"), kBad + "z");
  EXPECT_EQ(utf8_repair("\xE2\x82\xE2\x82\xAC"), kBad + "€");
  EXPECT_EQ(utf8_repair("\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);  // beyond U+10FFFF
  EXPECT_EQ(utf8_repair("\x80\xBF"), kBad + kBad);
}

TEST(Utf8, DecodeAndAppendAreInverse) {
  for (const char32_t c : {U'\0', U'\x7F', U'\x80', U'\u07FF', U'\u0800', U'\uFFFF', U'\U00010000', U'\U0010FFFF'}) {
    std::string text;
    utf8_append(text, c);
    std::size_t size = 0;
    EXPECT_EQ(utf8_decode(text, size), c);
    EXPECT_EQ(size, text.size());
    EXPECT_TRUE(utf8_valid(text));
  }
}

TEST(Utf8Stream, GivesWholeCharactersHoweverTheBytesAreCut) {
  const std::string bytes =
      "x\xF0\x9F\x98\x80é\xC3"
      "a\xE2\x82"
      "b\xFF漢\xF0\x9F";
  for (std::size_t step = 1; step <= bytes.size(); ++step) {
    Utf8Stream stream;
    std::string text;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      const std::string part = stream.add(std::string_view(bytes).substr(at, step));
      EXPECT_TRUE(utf8_valid(part));
      text += part;
    }
    text += stream.finish();
    EXPECT_EQ(text, utf8_repair(bytes)) << "cut every " << step << " bytes";
  }
}

TEST(Utf8Stream, HoldsBackOnlyAnUnfinishedCharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.add("ab\xE6\xBC"), "ab");
  EXPECT_EQ(stream.add("\xA2!"), "漢!");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace lomu
