// Runs the work of many pairs on the threads of a process. Each pair is worked on by itself, in an order of its own, so
// the threads decide when something is computed and never what comes out.
#pragma once

#include <cstddef>
#include <functional>

namespace lomu {

/// Calls work(i) for i < count. With fewer pairs than threads they run one after the other, so that the loops inside a
/// pair can use the threads. When calls throw, the exception of the smallest i is thrown here after all others have
/// ended.
void for_each_pair(std::size_t count, const std::function<void(std::size_t)>& work);

}  // namespace lomu
