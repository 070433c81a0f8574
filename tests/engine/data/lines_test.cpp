#include "engine/data/lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/error.h"
#include "tests/engine/data/scratch.h"

namespace lomu {
namespace {

using namespace std::string_literals;

std::vector<std::pair<std::uint64_t, std::string>> lines_of(const std::string& content) {
  const Scratch scratch;
  const MappedFile file(scratch.write("lines.txt", content));
  LineReader reader(file);
  std::vector<std::pair<std::uint64_t, std::string>> lines;
  while (const auto line = reader.next()) lines.emplace_back(line->number, line->text);
  return lines;
}

TEST(Lines, EndsOfEveryKind) {
  using testing::ElementsAre;
  using testing::Pair;
  EXPECT_THAT(lines_of(""), ElementsAre());
  EXPECT_THAT(lines_of("a"), ElementsAre(Pair(1, "a")));
  EXPECT_THAT(lines_of("a\n"), ElementsAre(Pair(1, "a")));
  EXPECT_THAT(lines_of("a\r\nb\r\n"), ElementsAre(Pair(1, "a"), Pair(2, "b")));
  EXPECT_THAT(lines_of("a\n\n\nb"), ElementsAre(Pair(1, "a"), Pair(2, ""), Pair(3, ""), Pair(4, "b")));
  EXPECT_THAT(lines_of("\xEF\xBB\xBF{}\n"), ElementsAre(Pair(1, "{}")));
  EXPECT_THAT(lines_of("a\xFF\0b\n"s), ElementsAre(Pair(1, "a\xFF\0b"s)));
}

TEST(Lines, ALineOfManyMegabytes) {
  const std::string big(16 << 20, 'x');
  const auto lines = lines_of("a\n" + big + "\nb");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1].second.size(), big.size());
  EXPECT_EQ(lines[2].first, 3u);
}

TEST(Lines, OtherEncodingsAreNamed) {
  for (const std::string& content : {"\xFF\xFE{\0}\0"s, "\xFE\xFF\0{\0}"s, "{\0}\0"s, "\0{\0}"s}) {
    EXPECT_THROW(lines_of(content), FormatError);
  }
}

TEST(Lines, Blank) {
  EXPECT_TRUE(is_blank(""));
  EXPECT_TRUE(is_blank(" \t\r"));
  EXPECT_FALSE(is_blank(" x"));
}

}  // namespace
}  // namespace lomu
