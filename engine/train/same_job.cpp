#include "engine/train/same_job.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <utility>
#include <vector>

#include "engine/config/resolved.h"
#include "kernels/error.h"
#include "models/files/hashing.h"
#include "models/files/mapped_file.h"

namespace lomu {
namespace {

std::string program_hash() {
  FastHash hash;
  hash.add(MappedFile("/proc/self/exe").bytes());
  return hash.hex();
}

std::uint64_t hash_of(const std::string& text) {
  FastHash hash;
  hash.add(text);
  return hash.value();
}

/// The first line in which two texts differ, of each; "nothing" where one has ended.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string x, y;
  while (true) {
    const bool more_left = static_cast<bool>(std::getline(left, x));
    const bool more_right = static_cast<bool>(std::getline(right, y));
    if (!more_left || !more_right || x != y) {
      return {more_left ? '"' + x + '"' : "nothing", more_right ? '"' + y + '"' : "nothing"};
    }
  }
}

}  // namespace

void check_same_job(const config::TrainConfig& config, Communicator& comm) {
  if (comm.size() == 1) return;
  const std::string program = comm.together([] { return program_hash(); }, "reading the program file");
  check_same_job(program, config::resolved_yaml(config), comm);
}

void check_same_job(const std::string& program, const std::string& configuration, Communicator& comm) {
  using Hashes = std::array<std::uint64_t, 2>;
  const Hashes mine{hash_of(program), hash_of(configuration)};
  std::vector<Hashes> all(static_cast<std::size_t>(comm.size()));
  comm.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "what the ranks run");
  for (int rank = 1; rank < comm.size(); ++rank) {
    const Hashes& other = all[static_cast<std::size_t>(rank)];
    if (other[0] != all[0][0]) {
      throw AgreedError(rank, fmt::format("rank {} runs another build of lomu than rank 0", rank), {},
                        "start the same program file on every machine; `mpirun ... lomu doctor` shows who has which",
                        Exit::kUsage);
    }
    if (other[1] == all[0][1]) continue;
    // Every rank knows by now that these two differ, so all take part in showing where.
    std::string first = configuration, theirs = configuration;
    for (const auto& [from, text] : {std::pair(0, &first), std::pair(rank, &theirs)}) {
      std::size_t size = text->size();
      comm.broadcast(std::as_writable_bytes(std::span(&size, 1)), from, "size of a configuration");
      text->resize(size);
      comm.broadcast(std::as_writable_bytes(std::span(*text)), from, "a configuration");
    }
    const auto [expected, got] = first_difference(first, theirs);
    throw AgreedError(
        rank, fmt::format("rank {} has another configuration than rank 0: {} where rank 0 has {}", rank, got, expected),
        {}, "start every rank with the same file and the same settings", Exit::kUsage);
  }
}

}  // namespace lomu
