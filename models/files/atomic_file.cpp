#include "models/files/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <system_error>
#include <utility>

#include "kernels/error.h"
#include "models/files/file_error.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

// "runs/out/" and "runs/out" are the same target; rename wants the latter.
fs::path without_trailing_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Hidden, so that a listing made meanwhile does not take it for a result. The random part keeps ranks apart.
fs::path temporary_name(const fs::path& target) {
  std::random_device random;
  return parent_of(target) / fmt::format(".{}.tmp-{:08x}", target.filename().string(), random());
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_file_error("open", folder, errno);
  // Some file systems cannot flush a folder (EINVAL); the rename itself is still atomic there.
  const int failed = ::fsync(fd) != 0 && errno != EINVAL ? errno : 0;
  ::close(fd);
  if (failed != 0) throw_file_error("flush", folder, failed);
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) {
      sync_folder(entry.path());
      continue;
    }
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw_file_error("open", entry.path(), errno);
    const int failed = ::fsync(fd) != 0 ? errno : 0;
    ::close(fd);
    if (failed != 0) throw_file_error("flush", entry.path(), failed);
  }
  sync_folder(folder);
}

[[noreturn]] void throw_exists(const fs::path& target) {
  throw FileError("the output folder exists already", target.string(),
                  "choose another folder, remove this one, or allow overwriting");
}

}  // namespace

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)), temporary_(temporary_name(target_)) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_file_error("create", target_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // Linux moves at most 2 GiB a call.
    const ssize_t n = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error("write", target_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    written_ += static_cast<std::uint64_t>(n);
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) throw_file_error("flush", target_, errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) throw_file_error("rename", target_, errno);
  // Some network file systems report a full disk only here; the file is in place, but the caller must know.
  if (::close(std::exchange(fd_, -1)) != 0) throw_file_error("close", target_, errno);
  sync_folder(parent_of(target_));
}

AtomicFolder::AtomicFolder(const fs::path& target, IfExists if_exists)
    : target_(without_trailing_slash(target)), if_exists_(if_exists) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target_, error);
  if (fs::exists(status) && if_exists_ == IfExists::kRefuse) throw_exists(target_);
  if (fs::exists(status) && !fs::is_directory(status)) throw_file_error("replace", target_, ENOTDIR);
  fs::create_directories(parent_of(target_), error);
  if (error) throw_file_error("create", parent_of(target_), error.value());
  fs::path temporary = temporary_name(target_);
  if (::mkdir(temporary.c_str(), 0777) != 0) throw_file_error("create", target_, errno);
  temporary_ = std::move(temporary);
}

AtomicFolder::~AtomicFolder() {
  if (temporary_.empty()) return;
  std::error_code ignored;  // a destructor cannot report; what stays behind has a name that says what it is
  fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  try {
    sync_tree(temporary_);
  } catch (const fs::filesystem_error& e) {
    throw_file_error("list", temporary_, e.code().value());
  }
  // RENAME_NOREPLACE and RENAME_EXCHANGE leave no moment in which neither the old folder nor the new one is there.
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) == 0) {
    temporary_.clear();
    sync_folder(parent_of(target_));
    return;
  }
  if (errno == EINVAL) {  // this file system knows only plain rename, which replaces nothing but an empty folder
    if (::rename(temporary_.c_str(), target_.c_str()) == 0) {
      temporary_.clear();
      sync_folder(parent_of(target_));
      return;
    }
  }
  const int error = errno;
  if (error != EEXIST && error != ENOTEMPTY) throw_file_error("rename", target_, error);
  if (if_exists_ == IfExists::kRefuse) throw_exists(target_);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
    throw_file_error("replace", target_, errno);
  }
  sync_folder(parent_of(target_));
  std::error_code ignored;  // temporary_ is the old folder now
  fs::remove_all(std::exchange(temporary_, fs::path{}), ignored);
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace lomu
