// What reducing gradients on a device asks of the library that moves them: NCCL between GPUs (comm/nccl), anything in
// tests. Everything is queued, in order, on one stream of the transport's own, and all ranks queue the same operations.
// It decides nothing: bucket_reducer.h says what goes where.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "comm/communicator.h"
#include "kernels/cuda/copy_tiles.h"
#include "kernels/cuda/ordered_add.h"
#include "kernels/cuda/stream.h"
#include "kernels/memory.h"

namespace lomu {

class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  /// Of the device whose addresses all methods take.
  [[nodiscard]] virtual Memory& memory() = 0;

  /// What is queued here from now on starts after what `producer` holds now.
  virtual void wait_for(cuda::Stream producer) = 0;
  /// What is queued on `consumer` from now on starts after what is queued here.
  virtual void release_to(cuda::Stream consumer) = 0;

  virtual void copy_tiles(const cuda::CopyTile* tiles, std::size_t count, const float* from, float* to) = 0;
  virtual void ordered_add(const cuda::OrderedSource* sources, int count, int depth, float* out, std::size_t n) = 0;
  virtual void zero(float* data, std::size_t n) = 0;

  /// Throws CommError if anything that was queued has failed since.
  virtual void check_queued() = 0;
  /// Returns when everything queued is done; throws as check_queued() does.
  virtual void drain() = 0;

  // Collective; throw CommError, at once or from any later call, naming rank, operation and `what`.

  /// As Communicator::exchange, without messages to oneself; at most one message from a rank to another.
  virtual void exchange(std::span<const Outgoing> sends, std::span<const Incoming> receives, std::string_view what) = 0;
  /// mine[i] = sum over ranks k of k's all[rank() * n + i], in an order that is the library's.
  virtual void reduce_scatter(const float* all, float* mine, std::size_t n, std::string_view what) = 0;
  /// all[k * n + i] = k's mine[i]. `mine` may be its place in `all`.
  virtual void all_gather(const float* mine, float* all, std::size_t n, std::string_view what) = 0;
};

}  // namespace lomu
