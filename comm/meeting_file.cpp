#include "comm/meeting_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <utility>

#include "kernels/error.h"

namespace lomu {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

void write_notice(const std::filesystem::path& file, const Notice& notice) {
  std::string text = fmt::format("lomu {:x} {:x} {}\n", notice.job, notice.host, notice.port);
  for (const std::string& address : notice.addresses) text += address + "\n";
  const std::string draft = fmt::format("{}.{}", file.string(), ::getpid());
  const int descriptor = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool good = descriptor >= 0;
  good = good && ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  good = good && ::fsync(descriptor) == 0;
  if (descriptor >= 0) ::close(descriptor);
  good = good && std::rename(draft.c_str(), file.c_str()) == 0;
  if (good) return;
  const int error = errno;
  std::error_code ignored;
  std::filesystem::remove(draft, ignored);
  throw FileError(fmt::format("cannot write the meeting file: {}", std::strerror(error)), file.string(),
                  "LOMU_RENDEZVOUS must name a file in an existing folder that all ranks see");
}

}  // namespace

std::uint64_t host_number() {
  std::string text = host_name();
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  text += boot;
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3u;
  return hash;
}

bool is_loopback(const std::string& host) {
  return host.starts_with("127.") || host == "::1";
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> all{host_name()};
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return all;
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr) continue;
    const int family = at->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(at->ifa_addr, length, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    const std::string number(text.data());
    const bool link_local = number.find('%') != std::string::npos;
    if (!is_loopback(number) && !link_local) all.push_back(number);
  }
  ::freeifaddrs(list);
  return all;
}

std::optional<Notice> read_notice(const std::filesystem::path& file) {
  constexpr std::size_t kMostAddresses = 64;
  std::ifstream in(file);
  std::string word;
  Notice notice;
  if (!(in >> word >> std::hex >> notice.job >> notice.host >> std::dec >> notice.port) || word != "lomu") {
    return std::nullopt;
  }
  while (notice.addresses.size() < kMostAddresses && in >> word) notice.addresses.push_back(word);
  return notice;
}

NoticeFile::NoticeFile(std::filesystem::path file, const Notice& notice) : file_(std::move(file)) {
  write_notice(file_, notice);
}

NoticeFile::~NoticeFile() {
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);
}

}  // namespace lomu
