// N ranks as threads of one process: for tests, and for laptops without MPI. The ranks share one host and one address
// space, so a message is one memcpy.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace lomu {

/// Runs `body` once for each rank of a world of `ranks` threads and returns when all have ended.
/// An exception in one rank wakes the others: what they wait for throws a CommError that names the failed rank and its
/// reason. The first rank's exception is rethrown here, as it was thrown. A rank that returns while another waits for
/// its message fails that other one at once. Throws UsageError if `ranks` < 1.
void run_threads(int ranks, const std::function<void(Communicator&)>& body, const CommOptions& options = {});

}  // namespace lomu
