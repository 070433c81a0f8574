// Gradients and factors between GPUs by NCCL: one communicator over the ranks of a job, one stream of high priority,
// and a watch over every collective. NCCL's own types stay in nccl_transport.cpp; a build without NCCL has a stand-in
// that says how to get it.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/device_transport.h"

namespace lomu {

struct NcclOptions {
  bool deterministic = true;
  /// Of one collective, once it has begun on this rank's device.
  std::chrono::milliseconds deadline = std::chrono::seconds(300);
  std::chrono::milliseconds warn_after = std::chrono::seconds(30);
  /// Of meeting the other ranks at the start.
  std::chrono::milliseconds start_deadline = std::chrono::seconds(120);
  /// Several ranks of one host may use one device, by the loopback recipe of nccl_settings.h: for tests.
  bool share_device = false;
};

bool built_with_nccl();
/// "2.28.9", of the library that runs; empty without NCCL.
std::string nccl_version();
/// Makes an id by which ranks could meet; needs the library but no GPU. Throws CommError.
void check_nccl_ids();

/// Collective over `ranks`, which outlives the result, as does `memory`, which lies on device `device` of this process.
/// The id travels over `ranks`; its context ("step 12") is named in messages.
/// Throws the same AgreedError on all ranks when one of them has no such device, two ranks of a host have the same one,
/// or their NCCL versions differ; CommError when they do not meet in time; UnsupportedError in a build without NCCL.
///
/// Failures later: a collective that misses its deadline, or an error that NCCL reports, stops all that is queued, so
/// that the host's waiting for a stream ends; the next call, check() or drain() throws CommError naming rank, operation
/// and step, and where the other ranks are. A program that comes to none of them within ten seconds is ended.
std::unique_ptr<DeviceTransport> make_nccl_transport(Communicator& ranks, int device, Memory& memory,
                                                     const NcclOptions& options = {});

}  // namespace lomu
