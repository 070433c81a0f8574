#include "models/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include "tests/models/tokenizer/small_tokenizer.h"

namespace lomu {
namespace {

std::string nfc(std::string_view text) {
  return std::string(normalize_unicode(AlignedText(text, 0), true).text());
}
std::string nfd(std::string_view text) {
  return std::string(normalize_unicode(AlignedText(text, 0), false).text());
}

TEST(Normalizer, ComposesAndDecomposes) {
  EXPECT_EQ(nfc("e\u0301"), "é");
  EXPECT_EQ(nfd("é"), "e\u0301");
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "한");  // Hangul
  EXPECT_EQ(nfd("한"), "\u1112\u1161\u11ab");
  EXPECT_EQ(nfc("a\u0315\u0300"), "à\u0315");  // reordered by combining class
  EXPECT_EQ(nfc("\u212b"), "Å");               // the angstrom sign is no composed form of itself
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");    // excluded from composition
}

TEST(Normalizer, TreatsMarksTheLibraryDoesNotKnowAsOrdinaryCharacters) {
  EXPECT_EQ(nfc("\u0736\u07fd\u064c"), "\u0736\u07fd\u064c");
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(nfc("\U00011938"), "\U00011938");
}

TEST(Normalizer, OriginsFollowTheText) {
  const std::string text = "xe\u0301y";  // é: 3 bytes become 2
  const AlignedText result = normalize_unicode(AlignedText(text, 0), true);
  ASSERT_EQ(result.text(), "xéy");
  EXPECT_EQ(result.origin(0), 0U);
  EXPECT_EQ(result.origin(1), 1U);
  EXPECT_EQ(result.origin(3), 4U);
  EXPECT_EQ(result.origin(4), 5U);
}

TEST(Normalizer, ALongRunOfMarksIsSortedInTime) {
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0316";
  const std::string result = nfc(marks);
  EXPECT_EQ(result.size(), marks.size() - 1);  // "a" and the first U+0301 become "á"
  EXPECT_TRUE(result.starts_with("\u00e1\u0316"));
}

}  // namespace
}  // namespace lomu
