// The small tokenizers of tests/data/tokenizer, and variations of them.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "kernels/error.h"
#include "models/tokenizer/tokenizer.h"

namespace lomu::test {

inline std::filesystem::path data_folder() {
  return std::filesystem::path(LOMU_TEST_DATA) / "tokenizer";
}

inline Tokenizer small_tokenizer(const std::string& name) {
  return Tokenizer::load(data_folder() / name);
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

inline nlohmann::json small_json(const std::string& name) {
  return nlohmann::json::parse(read_text(data_folder() / name / "tokenizer.json"));
}

/// A folder of its own that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lomu-tokenizer-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }

 private:
  std::filesystem::path path_;
};

/// Loads a tokenizer.json given as text, with the neighbours given.
inline Tokenizer load_text(const std::string& tokenizer, const std::string& config = {},
                           const std::string& chat_template = {}) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer);
  if (!config.empty()) folder.write("tokenizer_config.json", config);
  if (!chat_template.empty()) folder.write("chat_template.jinja", chat_template);
  return Tokenizer::load(folder.path());
}

inline std::string repeat(const std::string& text, std::size_t times) {
  std::string result;
  result.reserve(text.size() * times);
  for (std::size_t i = 0; i < times; ++i) result += text;
  return result;
}

}  // namespace lomu::test
