// A token for every byte: any valid text goes there and back, and the files that are written say the same.
#include "models/tokenizer/byte_tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/tokenizer_json.h"

namespace lomu {
namespace {

const std::string kText = "To be, or not\tto be:\r\n\n  that's it. \xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xAD 12345";

void expect_bytes(const Tokenizer& tokenizer) {
  EXPECT_EQ(tokenizer.vocab_size(), kByteVocabulary);
  const std::vector<std::int32_t> ids = tokenizer.encode(kText);
  ASSERT_EQ(ids.size(), kText.size());
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], static_cast<unsigned char>(kText[i])) << i;
  EXPECT_EQ(tokenizer.decode(ids), kText);
  EXPECT_EQ(tokenizer.eos(), 256);
  EXPECT_EQ(tokenizer.encode("<|endoftext|>"), std::vector<std::int32_t>{256});
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(ByteTokenizer, HasAnIdForEveryByte) {
  expect_bytes(Tokenizer(byte_tokenizer()));
}

TEST(ByteTokenizer, IsTheSameWhenReadFromItsFiles) {
  const auto folder = std::filesystem::temp_directory_path() / ("lomu-bytes-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  write_tokenizer_files(byte_tokenizer(), folder);
  const Tokenizer read = Tokenizer::load(folder);
  std::filesystem::remove_all(folder);
  expect_bytes(read);
}

TEST(ByteTokenizer, TakesALongTextInLinearTime) {
  const std::string text(std::size_t{1} << 20, 'x');
  EXPECT_EQ(Tokenizer(byte_tokenizer()).encode(text).size(), text.size());
}

}  // namespace
}  // namespace lomu
