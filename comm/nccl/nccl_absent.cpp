// Stands for nccl_transport.cpp in a build without CUDA or NCCL.
#include "comm/nccl/nccl_transport.h"
#include "kernels/error.h"

namespace lomu {

bool built_with_nccl() {
  return false;
}

std::string nccl_version() {
  return {};
}

void check_nccl_ids() {
  throw UnsupportedError("this build has no NCCL", {},
                         "install libnccl-dev, or set LOMU_NCCL_ROOT to a folder with its include and lib, and build "
                         "again with CUDA");
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Communicator&, int, Memory&, const NcclOptions&) {
  check_nccl_ids();
  return nullptr;
}

}  // namespace lomu
