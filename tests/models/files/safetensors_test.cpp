#include "models/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>

#include "models/files/safetensors_writer.h"
#include "tests/models/files/test_support.h"

namespace lomu {
namespace {

using test::error_of;
using test::ScratchFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string with_length(std::string_view header, std::size_t data_bytes, std::uint64_t length) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(length >> (8 * i));
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

std::string file_of(std::string_view header, std::size_t data_bytes) {
  return with_length(header, data_bytes, header.size());
}

SafetensorsFile open(const ScratchFolder& scratch, std::string_view bytes) {
  return SafetensorsFile(test::write_text(scratch / "x.safetensors", bytes));
}

TEST(Safetensors, RoundTripOfEveryTypeThatIsWritten) {
  const ScratchFolder scratch;
  const std::vector<float> values{0.0f, -0.0f, 1.5f, -3.25f, 65504.0f, 0x1p-14f};
  const std::vector<std::int32_t> ids{-5, std::numeric_limits<std::int32_t>::max(), 7};
  SafetensorsWriter writer(scratch / "x.safetensors", {{"half", DType::kF16, {6}},
                                                       {"ids", DType::kI32, {3}},
                                                       {"brain", DType::kBF16, {2, 3}},
                                                       {"empty", DType::kF32, {0, 4}},
                                                       {"one", DType::kF32, {}},
                                                       {"float \"quoted\"", DType::kF32, {3, 2}}});
  for (const TensorSpec& tensor : writer.tensors()) {
    if (tensor.dtype == DType::kI32) {
      writer.write(ids);
    } else if (tensor.elements() == 6) {
      writer.write(std::span(values).first(1));
      writer.write(std::span(values).subspan(1));
    } else if (tensor.elements() == 1) {
      writer.write(std::span(values).subspan(2, 1));
    }
  }
  writer.commit();

  const SafetensorsFile file(scratch / "x.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.header().size() % 8, 0u);
  for (const char* name : {"half", "brain", "float \"quoted\""}) {
    std::vector<float> back(6);
    file.read_f32(name, back);
    const bool brain = std::string_view(name) == "brain";
    for (std::size_t i = 0; i < 6; ++i) {
      const float expected = brain ? stored_value(values[i], DType::kBF16) : values[i];
      EXPECT_EQ(std::bit_cast<std::uint32_t>(back[i]), std::bit_cast<std::uint32_t>(expected)) << name << i;
    }
    std::vector<double> wide(6);
    file.read_f64(name, wide);
    EXPECT_EQ(wide[3], -3.25);
  }
  std::vector<std::int32_t> back(3);
  file.read_i32("ids", back);
  EXPECT_EQ(back, ids);
  std::vector<float> one(1);
  file.read_f32("one", one);
  EXPECT_EQ(one[0], 1.5f);
  EXPECT_EQ(file.at("empty").elements, 0);
  std::vector<float> none;
  file.read_f32("empty", none);
}

TEST(Safetensors, IntegersOf64BitsAreReadWhenTheyFit) {
  const ScratchFolder scratch;
  const SafetensorsFile file =
      open(scratch, file_of(R"({"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}})", 8));
  std::vector<std::int64_t> wide(1);
  file.read_i64("x", wide);
  EXPECT_EQ(wide[0], 0x0706050403020100);
  std::vector<std::int32_t> narrow_ids(1);
  EXPECT_THAT(error_of<FormatError>([&] { file.read_i32("x", narrow_ids); }), HasSubstr("32 bits"));
}

TEST(Safetensors, TypesThatAreNotReadAreRefusedByName) {
  const ScratchFolder scratch;
  const SafetensorsFile file =
      open(scratch, file_of(R"({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
                                                         "b": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}})",
                            16));
  std::vector<float> out(8);
  EXPECT_THAT(error_of<UnsupportedError>([&] { file.read_f32("a", out); }),
              AllOf(HasSubstr("F8_E4M3"), HasSubstr(": a")));
  out.resize(1);
  EXPECT_THAT(error_of<UnsupportedError>([&] { file.read_f32("b", out); }), HasSubstr("F64"));
  EXPECT_THAT(error_of<FormatError>([&] { file.read_f32("c", out); }), HasSubstr("no tensor of this name"));
  std::vector<double> wide(2);
  EXPECT_THAT(error_of<FormatError>([&] { file.read_f64("b", wide); }), HasSubstr("2 elements were expected"));
}

struct Bad {
  const char* name;
  const char* message;
  std::string bytes;
};

std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"x": {{"dtype": "{}", "shape": {}, "data_offsets": {}}}}})", dtype, shape, offsets);
}

std::vector<Bad> malformed() {
  const std::string good = one("F32", "[2]", "[0, 8]");
  std::string deep = "{\"x\": ";
  deep.append(100000, '[');
  std::string many = "{\"x\": {\"dtype\": \"F32\", \"shape\": [";
  for (int i = 0; i < 70; ++i) many += "9, ";
  many += "9], \"data_offsets\": [0, 8]}}";
  return {
      {"Empty", "8 bytes of header length", ""},
      {"SevenBytes", "8 bytes of header length", "1234567"},
      {"LengthOnly", "does not begin with {", with_length("", 0, 0)},
      {"LengthBeyondTheFile", "header length field says", with_length(good, 8, good.size() + 9)},
      {"LengthOf2To63", "header length field says", with_length(good, 8, std::uint64_t{1} << 63)},
      {"LengthOfAllOnes", "header length field says", with_length(good, 8, ~std::uint64_t{0})},
      {"LengthTooSmall", "not valid JSON", with_length(good, 8, good.size() - 3)},
      {"NotJson", "not valid JSON", file_of("{\"x\": ", 0)},
      {"NotAnObject", "does not begin with {", file_of("[1, 2]", 0)},
      {"Nested", "nested deeper", file_of(deep, 0)},
      {"InvalidUtf8", "not valid JSON", file_of("{\"\xff\xfe\": 1}", 0)},
      {"TensorIsANumber", "expected a JSON object", file_of(R"({"x": 1})", 0)},
      {"NoDtype", "dtype", file_of(R"({"x": {"shape": [2], "data_offsets": [0, 8]}})", 8)},
      {"NoShape", "shape", file_of(R"({"x": {"dtype": "F32", "data_offsets": [0, 8]}})", 8)},
      {"NoOffsets", "data_offsets", file_of(R"({"x": {"dtype": "F32", "shape": [2]}})", 8)},
      {"UnknownDtype", "unknown dtype \"F33\"", file_of(one("F33", "[2]", "[0, 8]"), 8)},
      {"DtypeOfAnotherSize", "F16 of shape [2] needs 4 bytes", file_of(one("F16", "[2]", "[0, 8]"), 8)},
      {"NegativeDim", "shape", file_of(one("F32", "[-2]", "[0, 8]"), 8)},
      {"FloatDim", "shape", file_of(one("F32", "[2.0]", "[0, 8]"), 8)},
      {"DimBeyond64Bits", "shape", file_of(one("F32", "[18446744073709551616]", "[0, 8]"), 8)},
      {"ProductOverflows", "more elements than 63 bits", file_of(one("F32", "[4294967296, 4294967296]", "[0, 8]"), 8)},
      // 2^62 elements of 4 bytes are 2^64 bytes, which is 0 in 64 bits.
      {"BytesOverflow", "63 bits", file_of(one("F32", "[4611686018427387904]", "[0, 0]"), 0)},
      {"SeventyDims", "63 bits", file_of(many, 8)},
      {"NotWholeBytes", "no whole number of bytes", file_of(one("F4", "[3]", "[0, 1]"), 1)},
      {"OffsetsBackwards", "outside the file", file_of(one("F32", "[2]", "[8, 0]"), 8)},
      {"OffsetsNegative", "outside the file", file_of(one("F32", "[2]", "[-8, 0]"), 8)},
      {"OffsetsBeyondTheFile", "outside the file", file_of(one("F32", "[4]", "[0, 16]"), 8)},
      {"OffsetsBeyond64Bits", "two integers",
       file_of(one("F32", "[2]", "[18446744073709551608, 18446744073709551616]"), 8)},
      {"OffsetsOfAllOnes", "two integers",
       file_of(one("F32", "[2]", "[18446744073709551607, 18446744073709551615]"), 8)},
      {"ThreeOffsets", "two integers", file_of(one("F32", "[2]", "[0, 8, 8]"), 8)},
      {"DataCutShort", "outside the file", file_of(good, 7)},
      {"DataTooLong", "belong to no tensor", file_of(good, 9)},
      {"GapInFront", "4 bytes before its data", file_of(one("F32", "[2]", "[4, 12]"), 12)},
      {"GapBetween", "4 bytes before its data",
       file_of(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}})",
               12)},
      {"Overlap", "overlap those of a",
       file_of(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
          "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
               12)},
      {"SameBytesTwice", "overlap",
       file_of(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
          "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})",
               8)},
      {"NameTwice", "appears twice",
       file_of(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
               8)},
      {"KeyTwice", "appears twice",
       file_of(R"({"a": {"dtype": "F32", "dtype": "F16", "shape": [1], "data_offsets": [0, 4]}})", 4)},
      {"MetadataIsAList", "__metadata__", file_of(R"({"__metadata__": []})", 0)},
      {"MetadataHasANumber", "must be a string", file_of(R"({"__metadata__": {"n": 1}})", 0)},
      {"NoTensorsButData", "belong to no tensor", file_of("{}", 8)},
  };
}

class MalformedSafetensors : public ::testing::TestWithParam<Bad> {};

TEST_P(MalformedSafetensors, IsAFormatErrorThatNamesTheFile) {
  const ScratchFolder scratch;
  EXPECT_THAT(error_of<FormatError>([&] { open(scratch, GetParam().bytes); }),
              AllOf(HasSubstr(GetParam().message), HasSubstr("x.safetensors")));
}

INSTANTIATE_TEST_SUITE_P(Safetensors, MalformedSafetensors, ::testing::ValuesIn(malformed()),
                         [](const auto& test_case) { return std::string(test_case.param.name); });

TEST(Safetensors, AFileCutAnywhereIsAFormatError) {
  const ScratchFolder scratch;
  const std::string good = file_of(one("F32", "[2, 1]", "[0, 8]"), 8);
  EXPECT_NO_THROW(open(scratch, good));
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_THROW(open(scratch, std::string_view(good).substr(0, length)), FormatError) << length;
  }
}

// Every single-byte change of a header gives a good file or a typed error, and what is listed can be read.
TEST(Safetensors, AHeaderWithOneWrongByteNeverCrashes) {
  const ScratchFolder scratch;
  const std::string good = file_of(one("F32", "[2, 1]", "[0, 8]"), 8);
  int accepted = 0;
  for (std::size_t i = 0; i + 8 < good.size(); ++i) {
    for (const char c : {'\0', '9', '"', '[', '}', '-', '\xff'}) {
      std::string bad = good;
      bad[i] = c;
      try {
        const SafetensorsFile file = open(scratch, bad);
        for (const SafetensorInfo& info : file.tensors()) EXPECT_EQ(file.raw(info).size(), 8u);
        ++accepted;
      } catch (const Error&) {
      }
    }
  }
  EXPECT_GT(accepted, 0);  // a changed name is still a name
}

TEST(Safetensors, MissingFilesAndFoldersAreFileErrors) {
  const ScratchFolder scratch;
  EXPECT_THAT(error_of<FileError>([&] { SafetensorsFile(scratch / "none"); }),
              AllOf(HasSubstr("none"), HasSubstr("No such file")));
  EXPECT_THAT(error_of<FileError>([&] { SafetensorsFile f(scratch.path()); }), HasSubstr("folder"));
  EXPECT_THAT(error_of<FileError>([&] { SafetensorsFile("/dev/null"); }), HasSubstr("regular file"));
}

class Shards : public ::testing::Test {
 protected:
  void shard(std::string_view file, std::string_view tensor) {
    test::write_text(
        scratch_ / file,
        file_of(fmt::format(R"({{"{}": {{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}}})", tensor), 8));
  }
  void index(std::string_view map) {
    test::write_text(scratch_ / "model.safetensors.index.json", fmt::format(R"({{"weight_map": {}}})", map));
  }
  template <typename E>
  std::string error() {
    return error_of<E>([&] { SafetensorsSet::open(scratch_.path()); });
  }
  const ScratchFolder scratch_;
};

TEST_F(Shards, AreOneSetOfTensors) {
  shard("1.safetensors", "a");
  shard("2.safetensors", "b");
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  const SafetensorsSet set = SafetensorsSet::open(scratch_.path());
  EXPECT_EQ(set.files().size(), 2u);
  EXPECT_EQ(set.find("b")->file->path().filename(), "2.safetensors");
  EXPECT_FALSE(set.find("c"));
}

TEST_F(Shards, ThatDoNotFitTheirIndexAreRefused) {
  shard("1.safetensors", "a");
  shard("2.safetensors", "a");
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  EXPECT_THAT(error<FormatError>(), AllOf(HasSubstr("2.safetensors, but it is not"), HasSubstr("index.json: b")));
  index(R"({"a": "1.safetensors", "c": "3.safetensors"})");
  EXPECT_THAT(error<FileError>(), HasSubstr("3.safetensors"));
  index(R"({"a": "../1.safetensors"})");
  EXPECT_THAT(error<FormatError>(), HasSubstr("same folder"));
  index(R"({"a": "/etc/passwd"})");
  EXPECT_THAT(error<FormatError>(), HasSubstr("same folder"));
  index(R"({"a": ".."})");
  EXPECT_THAT(error<FormatError>(), HasSubstr("same folder"));
  index(R"({"a": 1})");
  EXPECT_THAT(error<FormatError>(), HasSubstr("same folder"));
  index("{}");
  EXPECT_THAT(error<FormatError>(), HasSubstr("empty"));
  index("[]");
  EXPECT_THAT(error<FormatError>(), HasSubstr("weight_map must be an object"));
}

TEST_F(Shards, WithOneTensorTwiceAreRefused) {
  shard("1.safetensors", "a");
  test::write_text(scratch_ / "2.safetensors", file_of(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
      "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
                                                       8));
  index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  EXPECT_THAT(error<FormatError>(), HasSubstr("is in 1.safetensors too"));
}

TEST(SafetensorsWriter, WrongUseIsRefusedAndNothingIsLeft) {
  const ScratchFolder scratch;
  const std::vector<float> three(3);
  const std::vector<std::int32_t> ids(2);
  EXPECT_THROW(SafetensorsWriter(scratch / "x", {{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}), UsageError);
  EXPECT_THROW(SafetensorsWriter(scratch / "x", {{"a", DType::kF64, {1}}}), UsageError);
  EXPECT_THROW(SafetensorsWriter(scratch / "no/folder/x", {{"a", DType::kF32, {1}}}), FileError);
  {
    SafetensorsWriter writer(scratch / "x", {{"a", DType::kF32, {2}}});
    EXPECT_THROW(writer.write(three), UsageError);
    EXPECT_THROW(writer.write(ids), UsageError);
    EXPECT_THROW(writer.commit(), UsageError);
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(FileShardPlan, KeepsTheLimitAndNamesShardsAsTheHubDoes) {
  const auto plan = plan_file_shards(
      {{"a", DType::kF32, {10}}, {"b", DType::kBF16, {10}}, {"c", DType::kF32, {100}}, {"d", DType::kF32, {1}}}, 60);
  ASSERT_EQ(plan.shards.size(), 3u);
  EXPECT_EQ(plan.shards[0].file, "model-00001-of-00003.safetensors");
  EXPECT_EQ(plan.shards[0].tensors.size(), 2u);
  EXPECT_EQ(plan.shards[1].tensors.size(), 1u);
  EXPECT_THAT(plan.index,
              AllOf(HasSubstr("\"total_size\": 464"), HasSubstr("\"d\": \"model-00003-of-00003.safetensors\"")));
  EXPECT_EQ(plan_file_shards({{"a", DType::kF32, {10}}}).shards[0].file, "model.safetensors");
}

}  // namespace
}  // namespace lomu
