// The file of measured choices: what is written is read, and what is not such a file does no harm.
#include "kernels/cuda/algorithm_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace lomu::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHere = "NVIDIA H200, cuBLASLt 130100, driver 13000";
constexpr AlgorithmCache::Algorithm kOne{1, 2, 3, 0xffffffffffffffff, 5, 0, 7, 0x8000000000000000};
constexpr AlgorithmCache::Algorithm kOther{9, 8, 7, 6, 5, 4, 3, 2};

class AlgorithmCacheFile : public testing::Test {
 protected:
  AlgorithmCacheFile()
      : folder_(fs::path(testing::TempDir()) / ("lomu-products-" + std::to_string(getpid()))),
        file_(folder_ / "deeper" / "products.txt") {
    fs::remove_all(folder_);
  }
  ~AlgorithmCacheFile() override { fs::remove_all(folder_); }

  AlgorithmCache open(const std::string& environment = kHere) {
    return {file_, environment, [this](const std::string& text) { warnings_.push_back(text); }};
  }
  void write(const std::string& text) const {
    fs::create_directories(file_.parent_path());
    std::ofstream(file_, std::ios::binary) << text;
  }
  [[nodiscard]] std::string read() const {
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  fs::path folder_, file_;
  std::vector<std::string> warnings_;
};

TEST_F(AlgorithmCacheFile, IsReadByTheNextRun) {
  {
    AlgorithmCache cache = open();
    EXPECT_EQ(cache.find("shape"), std::nullopt);
    cache.add("shape", kOne);
    EXPECT_EQ(cache.find("shape"), kOne);
    cache.save();
  }
  const AlgorithmCache again = open();
  EXPECT_EQ(again.find("shape"), kOne);
  EXPECT_EQ(again.find("shap"), std::nullopt);
  EXPECT_TRUE(warnings_.empty());
  EXPECT_EQ(std::distance(fs::directory_iterator(file_.parent_path()), fs::directory_iterator()), 1);
}

TEST_F(AlgorithmCacheFile, KeepsWhatAnotherProcessHasWritten) {
  AlgorithmCache first = open(), second = open();
  first.add("a", kOne);
  first.add("both", kOne);
  second.add("b", kOther);
  second.add("both", kOther);
  first.save();
  second.save();
  const AlgorithmCache third = open();
  EXPECT_EQ(third.find("a"), kOne);
  EXPECT_EQ(third.find("b"), kOther);
  EXPECT_EQ(third.find("both"), kOther);
}

TEST_F(AlgorithmCacheFile, OfAnotherEnvironmentIsIgnoredWithOneWarning) {
  AlgorithmCache here = open();
  here.add("shape", kOne);
  here.save();
  AlgorithmCache there = open("NVIDIA A100, cuBLASLt 130100, driver 13000");
  EXPECT_EQ(there.size(), 0U);
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("another environment, NVIDIA H200"), std::string::npos) << warnings_[0];
  there.add("shape", kOther);
  there.save();
  EXPECT_EQ(warnings_.size(), 1U);
  EXPECT_EQ(open("NVIDIA A100, cuBLASLt 130100, driver 13000").find("shape"), kOther);
}

TEST_F(AlgorithmCacheFile, DamagedAnywhereIsIgnoredWithOneWarning) {
  const std::string whole = cache_text({{"one", kOne}, {"two", kOther}}, kHere);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW(parse_cache(whole.substr(0, length), kHere), FormatError) << "cut to " << length;
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = damaged[at] == 'x' ? 'y' : 'x';
    EXPECT_THROW(parse_cache(damaged, kHere), FormatError) << "byte " << at;
  }
  EXPECT_THROW(parse_cache(whole + "\n", kHere), FormatError);
  EXPECT_EQ(parse_cache(whole, kHere).size(), 2U);

  write("not a table");
  AlgorithmCache cache = open();
  EXPECT_EQ(cache.size(), 0U);
  EXPECT_EQ(warnings_.size(), 1U);
  cache.add("shape", kOne);
  cache.save();
  EXPECT_EQ(open().find("shape"), kOne);
}

TEST_F(AlgorithmCacheFile, TooLargeIsNotRead) {
  write(std::string((std::size_t{4} << 20) + 1, 'x'));
  EXPECT_EQ(open().size(), 0U);
  EXPECT_EQ(warnings_.size(), 1U);
}

TEST_F(AlgorithmCacheFile, ThatCannotBeWrittenIsOneWarning) {
  write("");
  fs::remove(file_);
  fs::create_directories(file_);  // a folder stands in its place
  AlgorithmCache cache = open();
  cache.add("shape", kOne);
  cache.save();
  cache.add("other", kOne);
  cache.save();
  EXPECT_EQ(warnings_.size(), 1U);
  EXPECT_EQ(cache.find("other"), kOne);
}

TEST_F(AlgorithmCacheFile, IsNotTouchedWithoutANewChoice) {
  AlgorithmCache cache = open();
  cache.save();
  EXPECT_FALSE(fs::exists(file_));
  AlgorithmCache nowhere({}, kHere, nullptr);
  nowhere.add("shape", kOne);
  nowhere.save();
  EXPECT_EQ(nowhere.find("shape"), kOne);
}

TEST(AlgorithmCachePlace, FollowsTheUsersCacheFolder) {
  const auto with = [](const char* cache, const char* home) {
    return default_cache_file(kHere, [=](const char* name) { return std::string(name) == "HOME" ? home : cache; });
  };
  EXPECT_EQ(with("/c", "/h").parent_path(), "/c/lomu");
  EXPECT_EQ(with(nullptr, "/h").parent_path(), "/h/.cache/lomu");
  EXPECT_EQ(with("relative", "/h").parent_path(), "/h/.cache/lomu");
  EXPECT_EQ(with("", nullptr), "");
  EXPECT_NE(default_cache_file("a", [](const char*) { return "/c"; }),
            default_cache_file("b", [](const char*) { return "/c"; }));
}

TEST(AlgorithmCacheKey, SharesNeighbouringSizesAndNothingElse) {
  Product p;
  p.m = 16384;
  p.n = 6144;
  p.k = 4160;
  p.operand = p.result = DType::kBF16;
  p.a.ld = p.b.ld = 4160;
  p.ldd = 6144;
  EXPECT_EQ(shape_text(p), "16384x5120x6144,bf16>bf16,nn--,16.16.16.16");
  const auto differs = [&](auto change) {
    Product other = p;
    change(other);
    return shape_text(other) != shape_text(p);
  };
  EXPECT_FALSE(differs([](Product& o) { o.m = 14337; }));
  EXPECT_FALSE(differs([](Product& o) {
    o.c = &o;
    o.ldc = 6144;
    o.beta = 0;
  }));
  EXPECT_TRUE(differs([](Product& o) { o.m = 14336; }));
  EXPECT_TRUE(differs([](Product& o) { o.m = 16385; }));
  EXPECT_TRUE(differs([](Product& o) { o.result = DType::kF32; }));
  EXPECT_TRUE(differs([](Product& o) { o.a.transposed = true; }));
  EXPECT_TRUE(differs([](Product& o) { o.b.transposed = true; }));
  EXPECT_TRUE(differs([](Product& o) { o.beta = 1; }));
  EXPECT_TRUE(differs([](Product& o) { o.a.ld = 4161; }));
  EXPECT_TRUE(differs([](Product& o) { o.d = reinterpret_cast<void*>(8); }));
  const float bias = 0;
  EXPECT_TRUE(differs([&](Product& o) { o.bias = &bias; }));
  for (const std::int64_t size : {1, 2, 7, 8}) {
    p.m = size;
    EXPECT_TRUE(shape_text(p).starts_with(std::to_string(size) + "x")) << size;
  }
}

}  // namespace
}  // namespace lomu::cuda
