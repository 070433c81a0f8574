#include "engine/config/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/config/schema_text.h"
#include "engine/config/terminal.h"
#include "tests/engine/config/config_fixture.h"

namespace lomu::config {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::Le;
using testing::Not;

TEST(Schema, EveryRowIsComplete) {
  const Schema& schema = train_schema();
  std::set<std::string> paths;
  for (const Field& field : schema.fields()) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path << " is there twice";
    EXPECT_TRUE(schema.is_section(field.section())) << field.path;
    EXPECT_FALSE(field.meaning.empty() || field.meaning.ends_with('.')) << field.path;
    EXPECT_TRUE(field.get && field.set) << field.path;
    EXPECT_EQ(field.derive != nullptr, !field.default_note.empty()) << field.path;
    std::vector<std::string> others = field.chosen_for;
    others.insert(others.end(), {field.excludes, field.when_key});
    for (const std::string& other : others) {
      EXPECT_TRUE(other.empty() || schema.find(other) != nullptr) << field.path << " names " << other;
    }
    if (!field.excludes.empty()) {
      EXPECT_EQ(schema.find(field.excludes)->excludes, field.path);
    }
    if (field.type == Type::kInteger) {
      EXPECT_LE(field.range.high, 9007199254740991.0) << field.path;
    }
  }
}

TEST(Schema, WritingWhatWasReadChangesNothing) {
  TrainConfig config = with({"data.validation=v", "adapter.from=a", "optimizer.name=adamw"});
  const TrainConfig before = config;
  for (const Field& field : train_schema().fields()) field.set(config, field.get(config));
  EXPECT_EQ(config, before);
}

TEST(Schema, DefaultsAreAllowedValues) {
  for (const Field& field : train_schema().fields()) {
    const Value value = field.get(TrainConfig{});
    if (field.required || (std::holds_alternative<std::monostate>(value) && field.off_word.empty())) continue;
    Written written;
    if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
      for (const auto& item : *list) written.items.push_back({item, false});
      written.list = true;
    } else {
      written.items.push_back({value_text(field, value), false});
    }
    EXPECT_EQ(read_value(field, written), value) << field.path;
  }
}

TEST(Schema, TextOfAValueCanBeAskedFor) {
  const TrainConfig config = with({"optimizer.max_grad_norm=off"});
  EXPECT_EQ(value_text(config, "optimizer.name"), "lora_muon");
  EXPECT_EQ(value_text(config, "optimizer.max_grad_norm"), "off");
  EXPECT_EQ(value_text(config, "adapter.layers"), "all");
  EXPECT_THROW(value_text(config, "no.such"), std::out_of_range);
}

std::vector<std::size_t> widths(const std::string& text) {
  std::vector<std::size_t> all;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) all.push_back(display_width(line));
  return all;
}

TEST(SchemaText, NamesEveryKeyAndKeepsToTheWidth) {
  for (const std::size_t width : {60u, 80u, 100u, 160u}) {
    const std::string text = schema_text(train_schema(), Style(false), width);
    EXPECT_THAT(widths(text), Each(Le(std::max<std::size_t>(width, 80)))) << width;
    for (const Field& field : train_schema().fields()) EXPECT_THAT(text, HasSubstr(std::string(field.name())));
  }
}

TEST(SchemaText, HasColoursOnlyWhenAsked) {
  EXPECT_THAT(schema_text(train_schema(), Style(false), 100), Not(HasSubstr("\x1b")));
  EXPECT_THAT(schema_text(train_schema(), Style(true), 100), HasSubstr("\x1b[1mrank\x1b[0m"));
}

TEST(SchemaJson, IsStrictAndDescribed) {
  const std::string json = schema_json(train_schema());
  EXPECT_THAT(json, AllOf(HasSubstr("https://json-schema.org/draft/2020-12/schema"),
                          HasSubstr("\"additionalProperties\": false"), HasSubstr("rank r of every pair")));
  for (const Field& field : train_schema().fields()) {
    EXPECT_THAT(json, HasSubstr("\"" + std::string(field.name()) + "\": {"));
  }
}

TEST(Documentation, HasTheTableThatTheProgramPrints) {
  std::ifstream file(LOMU_SOURCE_DIR "/docs/configuration.md");
  std::stringstream page;
  page << file.rdbuf();
  EXPECT_THAT(page.str(), HasSubstr(schema_markdown(train_schema())))
      << "replace the tables at the end of docs/configuration.md by the output of `lomu schema --markdown`";
}

}  // namespace
}  // namespace lomu::config
