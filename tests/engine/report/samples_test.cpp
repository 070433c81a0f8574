// Samples on the page: texts as they are, whatever they hold, and only the columns there are.
#include "engine/report/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace lomu {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string section_of(const RunSamples& run, const std::string& name = "run") {
  return samples_section(std::array{run}, std::array{name});
}

TEST(Samples, StandBesideEachOther) {
  const RunSamples run{"The first of all.", {{"p", "w", "b", "a"}, {"q", "v", "", "c"}}, {}, {}};
  EXPECT_THAT(section_of(run), AllOf(HasSubstr("<p>The first of all.</p>"),
                                     HasSubstr("<th>prompt</th><th>wanted</th><th>before</th><th>after</th>"),
                                     HasSubstr("<td>p</td><td>w</td><td>b</td><td>a</td>"),
                                     HasSubstr("<td>q</td><td>v</td><td></td><td>c</td>")));
}

TEST(Samples, HaveNoColumnOfWhatNobodyWrote) {
  const std::string page = section_of({"", {{"p", "w", {}, "a"}}, {"There is no text before."}, {}});
  EXPECT_THAT(page, AllOf(HasSubstr("<th>prompt</th><th>wanted</th><th>after</th>"),
                          HasSubstr("<td>p</td><td>w</td><td>a</td>"), HasSubstr("<p>There is no text before.</p>")));
  EXPECT_THAT(section_of({"", {}, {}, {{"No samples: gone", "models/x", "look"}}}),
              AllOf(HasSubstr("<p>No samples: gone (models/x).</p>"), Not(HasSubstr("<table"))));
}

TEST(Samples, CannotBreakOut) {
  const std::string evil = "</td><script>alert(\"1\")</script>&amp;";
  const std::string page = section_of({evil, {{evil, evil, evil, evil}}, {evil}, {{evil, evil, ""}}}, evil);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("\"1\"")),
                          HasSubstr("&lt;/td&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;")));
}

TEST(Samples, KeepLinesAndStarsAndShowControlCharacters) {
  const std::string page =
      section_of({"", {{"* a\n  b", std::string("\0\x1b[31m\x7f", 7), {}, "\xc3\xa9\t."}}, {}, {}});
  EXPECT_THAT(page, AllOf(HasSubstr("<td>* a\n  b</td>"), HasSubstr("<td>\u2400\u241b[31m\u2421</td>"),
                          HasSubstr("<td>\u00e9\t.</td>")));
}

}  // namespace
}  // namespace lomu
