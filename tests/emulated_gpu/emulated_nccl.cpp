// NCCL between emulated GPUs, in place of comm/nccl/nccl_transport.cpp: the same messages over the ranks' own channel.
#include "comm/nccl/nccl_transport.h"
#include "tests/comm/emulated_transport.h"

namespace lomu {

bool built_with_nccl() {
  return true;
}

std::string nccl_version() {
  return "emulated";
}

void check_nccl_ids() {}

std::unique_ptr<DeviceTransport> make_nccl_transport(Communicator& ranks, int, Memory& memory, const NcclOptions&) {
  return std::make_unique<EmulatedTransport>(ranks, memory);
}

}  // namespace lomu
