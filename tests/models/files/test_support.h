// What the tests of model files share: a scratch folder, bytes to files, and the text of an expected error.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace lomu::test {

/// A folder of this test's own, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = fmt::format("lomu-{}-{}-{}", info->test_suite_name(), info->name(), ::getpid());
    for (char& c : name) c = c == '/' ? '-' : c;
    path_ = std::filesystem::temp_directory_path() / name;
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path data_path(std::string_view name) {
  return std::filesystem::path(LOMU_TEST_DATA) / name;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::filesystem::path write_text(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::remove(path);  // ext4 flushes a file that was truncated and written again: milliseconds each
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

/// "old" becomes "new" once; fails the test when it is not there.
inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << "no " << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

/// Runs `action`, which must throw exactly an E, and gives "what | where | hint".
template <typename E, typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const E& e) {
    return fmt::format("{} | {} | {}", e.what(), e.where(), e.hint());
  } catch (const std::exception& e) {
    ADD_FAILURE() << "another error: " << e.what();
    return {};
  }
  ADD_FAILURE() << "no error";
  return {};
}

}  // namespace lomu::test
