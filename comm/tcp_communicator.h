// Ranks as processes that talk over TCP, every one with every other: what a job uses where there is no MPI. For host
// memory and for control; on GPUs the gradients go through NCCL. It is right and simple before it is fast.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "comm/meeting.h"

namespace lomu {

/// Meets the other ranks at `place` (see meet() for its errors). Ranks of one host, as far as kernel and host name
/// tell, are neighbours in rank order. A rank that ends without a word is named by those that wait, as soon as the
/// system closes its streams; a host that falls silent after about 20 s. abort() tells the others, who end with it when
/// they next wait; whatever started the ranks should end those that compute. One rank reports, the others stay silent.
std::unique_ptr<Communicator> make_tcp_communicator(int rank, int size, const MeetingPlace& place,
                                                    const CommOptions& options = {});

}  // namespace lomu
