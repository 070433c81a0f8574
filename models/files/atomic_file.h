// Writing that is whole or not at all: a temporary name beside the target, flushed to disk, then renamed over it.
// A reader never sees half a file; a crash, a full disk or an exception leaves what was there before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace lomu {

/// One file. Without commit() the destructor removes what was written.
class AtomicFile {
 public:
  /// Creates the temporary file in the target's folder. Throws FileError.
  explicit AtomicFile(std::filesystem::path target);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Appends. Throws FileError, for example on a full disk.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  [[nodiscard]] std::uint64_t bytes_written() const { return written_; }

  /// Flushes to disk and renames to the target, replacing a file of that name. Throws FileError.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  std::uint64_t written_ = 0;
};

/// What commit() does when the target folder is there already.
enum class IfExists : std::uint8_t { kRefuse, kReplace };

/// A folder of files. Fill path(), then commit(). Without commit() the destructor removes it and all in it.
class AtomicFolder {
 public:
  /// Creates a temporary folder beside the target, and the target's parents if they are missing. Throws FileError, also
  /// when the target exists and is to be refused: before any work is done.
  AtomicFolder(const std::filesystem::path& target, IfExists if_exists);
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder();

  /// The temporary folder, to be filled.
  [[nodiscard]] const std::filesystem::path& path() const { return temporary_; }

  /// Flushes every file in the folder and gives it its name; an old folder of that name is replaced in one step and
  /// then removed. Throws FileError.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  IfExists if_exists_;
};

/// Writes one small file whole or not at all. Throws FileError.
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace lomu
