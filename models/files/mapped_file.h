// A whole file mapped read-only: ranks on one machine share its pages, and nothing is read before it is touched.
// Not for files that change while they are mapped.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace lomu {

class MappedFile {
 public:
  /// Throws FileError when the path is missing, unreadable, a folder, or not a regular file. An empty file has no
  /// bytes.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  /// Tells the kernel that these bytes (a part of bytes()) will not be read soon. They stay readable. Pages that lie
  /// only partly inside are kept.
  void drop_pages(std::span<const std::byte> part) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lomu
