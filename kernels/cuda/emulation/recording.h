// Work that is noted instead of done, to be done again later: what a CUDA graph is to a stream. Launches look here
// first; so does everything else of an emulated device that a stream would queue.
#pragma once

#include <functional>
#include <vector>

namespace lomu::emu {

using Recorded = std::vector<std::function<void()>>;

/// Where this thread's launches are noted; null: they are carried out.
Recorded*& recording();

}  // namespace lomu::emu
