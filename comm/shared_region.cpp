#include "comm/shared_region.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace lomu {
namespace {

// The size of a large page on x86-64 and on ARM with 4 KiB pages.
constexpr std::size_t kHuge = std::size_t{2} << 20;
// The slowest source a fill is expected to read from, for the time the others wait: 50 MB/s, a busy network file
// system.
constexpr std::size_t kSlowestFillPerMs = 50'000;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

std::string error_text(std::string_view call) {
  return fmt::format("{}: {}", call, std::strerror(errno));
}

Error out_of_memory(std::string_view name, std::size_t bytes, std::string_view detail) {
  return Error(fmt::format("not enough memory for {} ({:.1f} MB): {}", name, static_cast<double>(bytes) / 1e6, detail),
               {}, "use a smaller model or a machine with more memory");
}

// The numbers of a file of "key value" lines; a file that cannot be read has none.
std::map<std::string, std::size_t> read_numbers(const char* path) {
  std::ifstream file(path);
  std::map<std::string, std::size_t> numbers;
  std::string key;
  std::size_t value = 0;
  for (std::string rest; file >> key >> value; std::getline(file, rest)) numbers[key] = value;
  return numbers;
}

// What the machine, and the control group of a container, can still give without killing anyone; nothing if they do not
// say.
std::optional<std::size_t> available_memory() {
  std::optional<std::size_t> available;
  const auto machine = read_numbers("/proc/meminfo");  // "MemAvailable:  123 kB"
  if (machine.contains("MemAvailable:")) {
    const auto swap = machine.find("SwapFree:");
    available = (machine.at("MemAvailable:") + (swap == machine.end() ? 0 : swap->second)) * 1024;
  }
  std::size_t limit = 0;
  const auto group = read_numbers("/sys/fs/cgroup/memory.stat");
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && group.contains("anon") && group.contains("shmem")) {
    // The rest of the group's memory is page cache, which gives way.
    const std::size_t used = group.at("anon") + group.at("shmem");
    const std::size_t left = limit > used ? limit - used : 0;
    available = std::min(available.value_or(left), left);
  }
  return available;
}

void require_memory(std::string_view name, std::size_t bytes) {
  const auto available = available_memory();
  if (!available || bytes <= *available) return;
  throw out_of_memory(name, bytes, fmt::format("{:.1f} MB are available", static_cast<double>(*available) / 1e6));
}

// What the local leader tells the others. dev and ino make sure that they open that very file: a process number means
// something else in another container.
struct Offer {
  std::int64_t pid = -1;
  std::int64_t fd = -1;
  std::uint64_t dev = 0;
  std::uint64_t ino = 0;
  std::uint64_t bytes = 0;
};

}  // namespace

// A mapping that starts on a large page. Address space only until `file` or anonymous memory is put there.
class SharedRegion::Mapping {
 public:
  Mapping(std::string_view name, std::size_t bytes) : size_(bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw out_of_memory(name, bytes, "no such address range");
    mapped_ = (bytes + kHuge - 1) / kHuge * kHuge;
    const std::size_t reserved = mapped_ + kHuge;
    void* const at = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw out_of_memory(name, bytes, error_text("mmap"));
    // Cut the reservation down to the aligned part.
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    const std::size_t before = (kHuge - address % kHuge) % kHuge;
    data_ = static_cast<std::byte*>(at) + before;
    if (before > 0) ::munmap(at, before);
    if (before < kHuge) ::munmap(data_ + mapped_, kHuge - before);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, mapped_);
  }

  /// Whether the file's (or, with fd -1, anonymous) memory now lies there; errno tells why not.
  bool place(int fd, int protection) {
    const int flags = MAP_FIXED | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    if (::mmap(data_, mapped_, protection, flags, fd, 0) == MAP_FAILED) return false;
    ::madvise(data_, mapped_, MADV_HUGEPAGE);  // a hint: a kernel without large pages is as right
    return true;
  }

  /// Gets all memory now, so that running out is an error here and not a signal later.
  void populate(std::string_view name, int fd) {
#ifdef MADV_POPULATE_WRITE
    int code = 0;
    do {
      code = ::madvise(data_, mapped_, MADV_POPULATE_WRITE);
    } while (code != 0 && errno == EINTR);
    if (code == 0) return;
    if (errno != EINVAL) throw out_of_memory(name, size_, error_text("madvise"));
#endif
    const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(mapped_));
    if (error != 0) throw out_of_memory(name, size_, std::strerror(error));
  }

  void protect() {
    ::mprotect(data_, mapped_, PROT_READ);
  }
  [[nodiscard]] std::span<std::byte> writable() const {
    return {data_, size_};
  }

  SharedRegion release(std::string note) {
    SharedRegion region;
    region.data_ = std::exchange(data_, nullptr);
    region.size_ = size_;
    region.mapped_ = mapped_;
    region.note_ = std::move(note);
    return region;
  }

  /// This rank's own memory, filled.
  static SharedRegion make_private(std::string_view name, std::size_t bytes, const Fill& fill, std::string note) {
    require_memory(name, bytes);
    Mapping mapping(name, bytes);
    if (!mapping.place(-1, PROT_READ | PROT_WRITE)) throw out_of_memory(name, bytes, error_text("mmap"));
    fill(mapping.writable());
    mapping.protect();
    return mapping.release(std::move(note));
  }

  /// The leader's side: the region, and the file the others map. Without a memory file the region is private.
  static std::pair<SharedRegion, FileDescriptor> make_shared(std::string_view name, std::size_t bytes,
                                                             const Fill& fill) {
    require_memory(name, bytes);
    Mapping mapping(name, bytes);
    FileDescriptor file(
        ::memfd_create(fmt::format("lomu:{}", name).substr(0, 200).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    const bool placed = file.get() >= 0 && ::ftruncate(file.get(), static_cast<off_t>(mapping.mapped_)) == 0 &&
                        mapping.place(file.get(), PROT_READ | PROT_WRITE);
    if (!placed) {
      std::string note = error_text("no memory file");
      return {make_private(name, bytes, fill, std::move(note)), FileDescriptor()};
    }
    mapping.populate(name, file.get());
    fill(mapping.writable());
    mapping.protect();
    // From here nobody can write or resize. A kernel before 5.1 refuses the write seal; then mprotect alone guards it.
    ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
    return {mapping.release({}), std::move(file)};
  }

  /// The others' side: the leader's memory, or why it cannot be reached.
  static std::pair<std::optional<SharedRegion>, std::string> map_offer(std::string_view name, std::size_t bytes,
                                                                       const Offer& offer) {
    if (offer.bytes != bytes) {
      throw Error(fmt::format("ranks of one host ask for {} of {} and {} bytes", name, offer.bytes, bytes));
    }
    if (offer.fd < 0) return {std::nullopt, "the local leader has no memory file"};
    const std::string path = fmt::format("/proc/{}/fd/{}", offer.pid, offer.fd);
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return {std::nullopt, error_text("cannot open the local leader's memory " + path)};
    struct stat info = {};
    if (::fstat(file.get(), &info) != 0 || info.st_dev != offer.dev || info.st_ino != offer.ino) {
      return {std::nullopt, fmt::format("{} is not the local leader's memory (another container?)", path)};
    }
    Mapping mapping(name, bytes);
    if (!mapping.place(file.get(), PROT_READ)) {
      return {std::nullopt, error_text("cannot map the local leader's memory")};
    }
    return {mapping.release({}), std::string()};
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_;
  std::size_t mapped_ = 0;
};

SharedRegion SharedRegion::create(Communicator& comm, std::size_t bytes, std::string_view name, const Fill& fill) {
  // A fill may take long; it is no reason to believe that a rank hangs.
  const ScopedDeadline patience(comm, comm.deadline() + std::chrono::milliseconds(bytes / kSlowestFillPerMs));
  const bool leader = comm.local_rank() == 0;
  SharedRegion region;
  FileDescriptor file;

  // 1. The leaders fill. Every rank learns here if one could not.
  comm.together(
      [&] {
        if (!leader || bytes == 0) return;
        if (comm.local_size() == 1) {
          region = Mapping::make_private(name, bytes, fill, {});
        } else {
          std::tie(region, file) = Mapping::make_shared(name, bytes, fill);
        }
      },
      name);
  if (bytes == 0 || comm.size() == 1) return region;

  // 2. The leaders say where.
  Offer mine;
  mine.bytes = bytes;
  struct stat info = {};
  if (file.get() >= 0 && ::fstat(file.get(), &info) == 0)
    mine = {::getpid(), file.get(), info.st_dev, info.st_ino, bytes};
  std::vector<Offer> offers(static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(offers)), name);

  // 3. The others map, or fill for themselves. After this the leader's descriptor may close: the mappings keep the
  // memory.
  comm.together(
      [&] {
        if (leader) return;
        auto [mapped, note] = Mapping::map_offer(name, bytes, offers[static_cast<std::size_t>(comm.local_leader())]);
        region = mapped ? std::move(*mapped) : Mapping::make_private(name, bytes, fill, std::move(note));
      },
      name);
  return region;
}

SharedRegion::SharedRegion(SharedRegion&& other) noexcept {
  *this = std::move(other);
}

SharedRegion& SharedRegion::operator=(SharedRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  std::swap(note_, other.note_);
  return *this;
}

SharedRegion::~SharedRegion() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
}

}  // namespace lomu
