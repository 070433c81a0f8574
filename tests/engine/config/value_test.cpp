#include "engine/config/value.h"

#include <gtest/gtest.h>

#include <limits>

namespace lomu::config {
namespace {

TEST(ReadNumber, TakesEveryDecimalSpelling) {
  const auto number = [](const char* text) { return read_number({text, false}); };
  EXPECT_EQ(number("1"), 1);
  EXPECT_EQ(number("-1.5"), -1.5);
  EXPECT_EQ(number("+2"), 2);
  EXPECT_EQ(number(".5"), 0.5);
  EXPECT_EQ(number("1."), 1);
  EXPECT_EQ(number("1e-3"), 1e-3) << "text to YAML 1.1 readers, a number here";
  EXPECT_EQ(number("1E+3"), 1e3);
  EXPECT_EQ(number("0.1"), 0.1);
}

TEST(ReadNumber, RefusesWhatIsNone) {
  for (const char* text :
       {"", ".", "-", "e5", "1e", "1e+", "--1", "+-1", "1 2", "0x1p3", "1f", "inf", "nan", "1.2.3", "1e400"}) {
    EXPECT_THROW(read_number({text, false}), BadValue) << text;
  }
}

TEST(ReadInteger, TakesTheWholeRange) {
  EXPECT_EQ(read_integer({"9223372036854775807", false}), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(read_integer({"-9223372036854775808", false}), std::numeric_limits<std::int64_t>::min());
  EXPECT_THROW(read_integer({"9223372036854775808", false}), BadValue);
  EXPECT_EQ(read_integer({"+7", false}), 7);
  EXPECT_THROW(read_integer({"007", false}), BadValue);
}

TEST(ReadBoolean, KnowsYaml12Only) {
  EXPECT_TRUE(read_boolean({"true", false}));
  EXPECT_FALSE(read_boolean({"False", false}));
  for (const char* text : {"yes", "no", "on", "off", "1", "0", "y", ""}) {
    EXPECT_THROW(read_boolean({text, false}), BadValue) << text;
  }
  EXPECT_THROW(read_boolean({"true", true}), BadValue);
}

TEST(ToYaml, QuotesWhatAReaderCouldMistake) {
  EXPECT_EQ(to_yaml(std::string("runs/a-1.gguf")), "runs/a-1.gguf");
  for (const char* text : {"", "true", "No", "12", "1e3", "null", "~", "a b", "#x", "-", "a: b", "[x", "..."}) {
    EXPECT_EQ(to_yaml(std::string(text)).front(), '"') << text;
  }
  EXPECT_EQ(to_yaml(std::string("a\"\\\n\x01")), "\"a\\\"\\\\\\n\\x01\"");
  EXPECT_EQ(to_yaml(std::vector<std::string>{"q", "1"}), "[q, \"1\"]");
}

}  // namespace
}  // namespace lomu::config
