// How the ranks of a job without MPI find each other: rank 0 listens at an address that all know, or writes where it
// listens into a file that all see; the others come to it, learn of each other, and connect, every rank to every other.
// It ends with one stream between any two ranks. What travels on them is tcp_communicator.h's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/socket.h"

namespace lomu {

/// Where rank 0 is found: an address, or else the file that says it.
struct MeetingPlace {
  std::optional<Address> address;
  std::filesystem::path file;
  [[nodiscard]] std::string text() const;
};

struct Peers {
  std::vector<Socket> streams;       ///< by rank; a rank's own is empty
  std::vector<std::uint64_t> hosts;  ///< by rank: equal numbers share a host
};

/// Returns when every rank has met every other. A caller that is no rank of this job is turned away; a file that an
/// earlier job left behind is replaced. Throws CommError: the deadline of `options` passed (naming the ranks that have
/// not come), two processes say to be the same rank, ranks believe in different world sizes, or a rank ended meanwhile.
Peers meet(int rank, int size, const MeetingPlace& place, const CommOptions& options);

}  // namespace lomu
