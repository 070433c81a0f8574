// The file in which rank 0 writes where it listens, and the names of hosts that are written there. For meeting.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lomu {

/// A number for this host: ranks share it when they share a kernel and a host name; containers of one machine do not.
std::uint64_t host_number();

/// "127.0.0.1", "::1".
bool is_loopback(const std::string& host);

/// This host's name, then every number by which a rank elsewhere could reach it.
std::vector<std::string> own_addresses();

/// What rank 0 tells the others.
struct Notice {
  std::uint64_t job = 0;  ///< drawn anew for each job: tells this file from that of an earlier one
  std::uint64_t host = 0;
  int port = 0;
  std::vector<std::string> addresses;
};

/// Nothing when there is no such file yet, or it is something else.
std::optional<Notice> read_notice(const std::filesystem::path& file);

/// Writes the file, in place of any other, and removes it when the meeting is over, however it ends.
class NoticeFile {
 public:
  /// Throws FileError.
  NoticeFile(std::filesystem::path file, const Notice& notice);
  NoticeFile(const NoticeFile&) = delete;
  NoticeFile& operator=(const NoticeFile&) = delete;
  ~NoticeFile();

 private:
  std::filesystem::path file_;
};

}  // namespace lomu
