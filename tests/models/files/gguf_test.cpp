#include "models/files/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "tests/models/files/gguf_bytes.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::error_of;
using test::GgufBytes;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint32_t kF32 = 0;
constexpr std::uint32_t kQ4_0 = 2;
constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;

GgufFile open(const ScratchFolder& scratch, std::string_view bytes) {
  return GgufFile(test::write_text(scratch / "x.gguf", bytes));
}

// One file with every value type and two tensors.
std::string sample(std::uint32_t version = 3) {
  GgufBytes g;
  g.header(2, 16, version).key_u32("general.alignment", 32);
  g.string("u8").put(0u).put(std::uint8_t{200});
  g.string("i8").put(1u).put(std::int8_t{-7});
  g.string("u16").put(2u).put(std::uint16_t{60000});
  g.string("i16").put(3u).put(std::int16_t{-600});
  g.string("i32").put(5u).put(std::int32_t{-70000});
  g.key_f32("f32", 1e-5f);
  g.string("bool").put(7u).put(std::uint8_t{1});
  g.key_string("string", "h\xc3\xa9");
  g.string("u64").put(10u).put(std::uint64_t{1} << 40);
  g.string("i64").put(11u).put(std::int64_t{-1} << 40);
  g.string("f64").put(12u).put(0.1);
  g.string("strings").put(9u).put(8u).put(std::uint64_t{2}).string("a").string("");
  g.string("ints").put(9u).put(5u).put(std::uint64_t{3}).put(1).put(-2).put(3);
  g.string("floats").put(9u).put(6u).put(std::uint64_t{1}).put(0.5f);
  g.string("nested")
      .put(9u)
      .put(9u)
      .put(std::uint64_t{1})
      .put(0u)
      .put(std::uint64_t{2})
      .put(std::uint8_t{4})
      .put(std::uint8_t{5});
  g.tensor("b", {32, 2}, kQ4_0, 0).tensor("a", {3}, kF32, 64).align().zeros(36).align().floats({1.0f, 2.0f, 3.0f});
  return g.bytes();
}

class GgufVersions : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(GgufVersions, EveryValueTypeIsRead) {
  const ScratchFolder scratch;
  const GgufFile file = open(scratch, sample(GetParam()));
  EXPECT_EQ(file.version(), GetParam());
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -7);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -600);
  EXPECT_EQ(file.integer("i32"), -70000);
  EXPECT_EQ(file.number("f32"), 1e-5);
  EXPECT_EQ(file.number("i32"), -70000.0);
  EXPECT_EQ(file.boolean("bool"), true);
  EXPECT_EQ(file.string("string"), "h\xc3\xa9");
  EXPECT_EQ(file.integer("u64"), std::int64_t{1} << 40);
  EXPECT_EQ(file.integer("i64"), -(std::int64_t{1} << 40));
  EXPECT_EQ(file.number("f64"), 0.1);
  EXPECT_THAT(*file.strings("strings"), ElementsAre("a", ""));
  EXPECT_THAT(*file.integers("ints"), ElementsAre(1, -2, 3));
  EXPECT_THAT(*file.numbers("floats"), ElementsAre(0.5));
  EXPECT_TRUE(file.has("nested"));
  EXPECT_FALSE(file.integer("absent"));
  EXPECT_EQ(file.strings("absent"), nullptr);
  std::vector<float> values(3);
  file.read_f32(*file.find("a"), 0, values);
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f, 3.0f));
  EXPECT_EQ(file.find("c"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Gguf, GgufVersions, ::testing::Values(2u, 3u));

TEST(Gguf, KeysOfAnotherTypeAndRangesOutsideAreRefused) {
  const ScratchFolder scratch;
  const GgufFile file = open(scratch, sample());
  EXPECT_THAT(error_of<FormatError>([&] { (void)file.integer("string"); }), HasSubstr("string must be an integer"));
  EXPECT_THAT(error_of<FormatError>([&] { (void)file.strings("ints"); }), HasSubstr("list of strings"));
  EXPECT_THAT(error_of<FormatError>([&] { (void)file.integers("u8"); }), HasSubstr("list of integers"));
  std::vector<float> values(16);
  EXPECT_THROW(file.read_f32(*file.find("b"), 0, values), FormatError);  // half a block
  values.resize(32);
  EXPECT_THROW(file.read_f32(*file.find("b"), 16, values), FormatError);  // not at a block
  EXPECT_THROW(file.read_f32(*file.find("b"), 64, values), FormatError);
  EXPECT_NO_THROW(file.read_f32(*file.find("b"), 32, values));
}

struct Bad {
  const char* name;
  const char* message;
  std::string bytes;
};

std::string one_tensor(const std::vector<std::int64_t>& dims, std::uint32_t type, std::uint64_t offset,
                       std::size_t data) {
  return GgufBytes().header(1, 0).tensor("t", dims, type, offset).align().zeros(data).bytes();
}

std::vector<Bad> malformed() {
  GgufBytes deep;
  deep.header(0, 1).string("k").put(9u);
  for (int i = 0; i < 1000; ++i) deep.put(9u).put(std::uint64_t{1});
  deep.put(0u).put(std::uint64_t{0});
  return {
      {"Empty", "the file ends inside", ""},
      {"NoMagic", "does not begin with GGUF", std::string(64, 'x')},
      {"NoCounts", "the file ends inside", GgufBytes().raw("GGUF").put(3u).bytes()},
      {"TensorsOfAllOnes", "18446744073709551615 tensors do not fit",
       GgufBytes().header(~std::uint64_t{0}, 0).zeros(64).bytes()},
      {"KeysOfAllOnes", "metadata keys do not fit", GgufBytes().header(0, ~std::uint64_t{0}).zeros(64).bytes()},
      {"KeyLongerThanTheFile", "does not fit", GgufBytes().header(0, 1).put(kHuge).zeros(64).bytes()},
      {"KeyOfAllOnes", "string of 18446744073709551615",
       GgufBytes().header(0, 1).put(~std::uint64_t{0}).zeros(64).bytes()},
      {"UnknownValueType", "unknown value type 13", GgufBytes().header(0, 1).string("k").put(13u).zeros(64).bytes()},
      {"StringLongerThanTheFile", "string of",
       GgufBytes().header(0, 1).string("k").put(8u).put(kHuge).zeros(8).bytes()},
      {"ArrayLongerThanTheFile", "array elements do not fit",
       GgufBytes().header(0, 1).string("k").put(9u).put(0u).put(kHuge).zeros(8).bytes()},
      {"ArrayOfStringsLongerThanTheFile", "array elements do not fit",
       GgufBytes().header(0, 1).string("k").put(9u).put(8u).put(std::uint64_t{9}).zeros(64).bytes()},
      {"ArrayOfUnknownType", "unknown value type 99",
       GgufBytes().header(0, 1).string("k").put(9u).put(99u).put(std::uint64_t{1}).zeros(8).bytes()},
      {"ArraysInArraysInArrays", "nested deeper", deep.bytes()},
      {"ArrayCutShort", "the file ends inside", GgufBytes().header(0, 1).string("key").put(9u).bytes()},
      {"BooleanOfTwo", "boolean must be 0 or 1",
       GgufBytes().header(0, 1).string("k").put(7u).put(std::uint8_t{2}).zeros(8).bytes()},
      {"IntegerBeyond63Bits", "beyond 63 bits",
       GgufBytes().header(0, 1).string("k").put(10u).put(~std::uint64_t{0}).bytes()},
      {"KeyTwice", "appears twice", GgufBytes().header(0, 2).key_u32("k", 1).key_u32("k", 2).bytes()},
      {"AlignmentZero", "power of two", GgufBytes().header(0, 1).key_u32("general.alignment", 0).bytes()},
      {"AlignmentThree", "power of two", GgufBytes().header(0, 1).key_u32("general.alignment", 3).bytes()},
      {"AlignmentIsAString", "must be an integer",
       GgufBytes().header(0, 1).key_string("general.alignment", "32").bytes()},
      {"NoDims", "1 to 4 dimensions, not 0", one_tensor({}, kF32, 0, 64)},
      {"FiveDims", "1 to 4 dimensions, not 5", one_tensor({1, 1, 1, 1, 1}, kF32, 0, 64)},
      {"DimsOfAllOnes", "dimensions, not 4294967295", GgufBytes().header(1, 0).string("t").put(~0u).zeros(128).bytes()},
      {"ZeroDim", "dimension 1 is 0", one_tensor({4, 0}, kF32, 0, 64)},
      {"NegativeDim", "dimension 0 is -1", one_tensor({-1}, kF32, 0, 64)},
      {"ElementsOverflow", "more elements than 63 bits",
       one_tensor({std::int64_t{1} << 32, std::int64_t{1} << 32}, kF32, 0, 64)},
      {"BytesOverflow", "more bytes than 63 bits", one_tensor({std::int64_t{1} << 62}, kF32, 0, 64)},
      {"RowsOfHalfABlock", "whole number of q4_0 blocks", one_tensor({48, 2}, kQ4_0, 0, 64)},
      {"OffsetNotAligned", "not a multiple of the alignment", one_tensor({4}, kF32, 8, 64)},
      {"OffsetOutside", "outside the file", one_tensor({4}, kF32, 128, 64)},
      {"OffsetOfAllOnes", "outside the file", one_tensor({4}, kF32, ~std::uint64_t{31}, 64)},
      {"DataCutShort", "outside the file", one_tensor({32}, kF32, 0, 127)},
      {"NoDataAtAll", "outside the file", GgufBytes().header(1, 0).tensor("t", {4}, kF32, 0).align().bytes()},
      {"EndsBeforeItsData", "ends before its tensor data", GgufBytes().header(1, 0).tensor("t", {4}, kF32, 0).bytes()},
      {"NameTwice", "two tensors have this name",
       GgufBytes().header(2, 0).tensor("t", {4}, kF32, 0).tensor("t", {4}, kF32, 32).align().zeros(64).bytes()},
      {"Overlap", "overlap those of a",
       GgufBytes().header(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {4}, kF32, 32).align().zeros(64).bytes()},
      {"TensorTableCutShort", "do not fit", GgufBytes().header(3, 0).tensor("a", {4}, kF32, 0).bytes()},
  };
}

class MalformedGguf : public ::testing::TestWithParam<Bad> {};

TEST_P(MalformedGguf, IsAFormatErrorThatNamesTheFile) {
  const ScratchFolder scratch;
  EXPECT_THAT(error_of<FormatError>([&] { open(scratch, GetParam().bytes); }),
              AllOf(HasSubstr(GetParam().message), HasSubstr("x.gguf")));
}

INSTANTIATE_TEST_SUITE_P(Gguf, MalformedGguf, ::testing::ValuesIn(malformed()),
                         [](const auto& test_case) { return std::string(test_case.param.name); });

TEST(Gguf, WhatIsNotImplementedIsRefusedByName) {
  const ScratchFolder scratch;
  const auto error = [&](const std::string& bytes) {
    return error_of<UnsupportedError>([&] { open(scratch, bytes); });
  };
  EXPECT_THAT(error(sample(1)), HasSubstr("GGUF version 1"));
  EXPECT_THAT(error(sample(4)), HasSubstr("GGUF version 4"));
  EXPECT_THAT(error(sample(0x03000000)), HasSubstr("big-endian"));
  EXPECT_THAT(error(one_tensor({4}, 1000, 0, 64)), AllOf(HasSubstr("type number 1000"), HasSubstr(": t")));
  EXPECT_THAT(error(GgufBytes().header(0, 1).string("split.count").put(2u).put(std::uint16_t{3}).bytes()),
              HasSubstr("split"));
  const GgufFile file = open(scratch, one_tensor({256}, 10, 0, 84));  // listed, but not read
  std::vector<float> out(256);
  EXPECT_THAT(error_of<UnsupportedError>([&] { file.read_f32(*file.find("t"), 0, out); }), HasSubstr("q2_K"));
}

TEST(Gguf, AFileCutAnywhereIsAFormatError) {
  const ScratchFolder scratch;
  const std::string good = sample();
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(open(scratch, std::string_view(good).substr(0, length)), FormatError) << length;
  }
}

TEST(Gguf, AHeaderWithOneWrongByteNeverCrashes) {
  const ScratchFolder scratch;
  const std::string good = sample();
  for (std::size_t i = 0; i < good.size() - 12; ++i) {
    for (const char c : {'\0', '\1', '\x7f', '\x80', '\xff'}) {
      std::string bad = good;
      bad[i] = c;
      try {
        const GgufFile file = open(scratch, bad);
        for (const auto& [name, tensor] : file.tensors()) {
          ASSERT_LE(tensor.bytes, bad.size());
          std::vector<float> out(static_cast<std::size_t>(tensor.elements));
          file.read_f32(tensor, 0, out);
        }
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace lomu
