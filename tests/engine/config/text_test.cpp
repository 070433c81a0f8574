#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "engine/config/nearest.h"
#include "engine/config/terminal.h"

namespace lomu {
namespace {

using testing::ElementsAre;

TEST(EditDistance, CountsChangesAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("rank", "rank"), 0u);
  EXPECT_EQ(edit_distance("rank", "rnak"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance(std::string(10000, 'a'), "a"), 255u) << "long words are cut";
}

TEST(Nearest, FindsWhatWasMeantAndNothingElse) {
  const std::vector<std::string> words = {"rank", "alpha", "lr"};
  EXPECT_EQ(nearest("rnak", words), "rank");
  EXPECT_EQ(nearest("ALPHA", words), "alpha");
  EXPECT_EQ(nearest("lt", words), "lr");
  EXPECT_EQ(nearest("xy", words), std::nullopt);
  EXPECT_EQ(nearest("banana", words), std::nullopt);
  EXPECT_EQ(nearest("", words), std::nullopt);
  EXPECT_EQ(nearest("x", {}), std::nullopt);
}

TEST(Human, CountsBytesAndTimes) {
  EXPECT_EQ(human_count(950), "950");
  EXPECT_EQ(human_count(12345), "12.3k");
  EXPECT_EQ(human_count(134.5e6), "134M");
  EXPECT_EQ(human_count(999999), "1.00M");
  EXPECT_EQ(human_count(-2500), "-2.50k");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(98362432), "98.4 MB");
  EXPECT_EQ(human_bytes(1430000000), "1.43 GB");
  EXPECT_EQ(human_bytes(999999), "1.00 MB");
  EXPECT_EQ(human_bytes(~std::uint64_t{0}), "18.4 EB");
  EXPECT_EQ(human_duration(0.414), "0.41 s");
  EXPECT_EQ(human_duration(59.99), "1 min 00 s");
  EXPECT_EQ(human_duration(192), "3 min 12 s");
  EXPECT_EQ(human_duration(3850), "1 h 04 min");
  EXPECT_EQ(human_duration(183600), "2 d 03 h");
  EXPECT_EQ(human_duration(NAN), "?");
  EXPECT_EQ(human_duration(-1), "?");
  EXPECT_FALSE(human_duration(1e300).empty());
}

TEST(Wrap, BreaksAtBlanks) {
  EXPECT_THAT(wrap("one two three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(wrap("unbreakable", 3), ElementsAre("unbreakable"));
  EXPECT_THAT(wrap("", 3), ElementsAre(""));
  EXPECT_EQ(display_width("caf\xc3\xa9"), 4u);
}

TEST(Style, FollowsTheEnvironment) {
  setenv("FORCE_COLOR", "1", 1);
  EXPECT_TRUE(style_for(stdout).colour());
  setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(style_for(stdout).colour());
  unsetenv("NO_COLOR");
  unsetenv("FORCE_COLOR");
  EXPECT_EQ(Style(false).red("x"), "x");
  EXPECT_EQ(Style(true).dim("x"), "\x1b[2mx\x1b[0m");
}

}  // namespace
}  // namespace lomu
