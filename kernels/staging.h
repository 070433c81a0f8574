// The way of encoded rows from a file into a backend's storage: a buffer there that each batch of rows goes through, no
// larger than the largest batch. Where a backend works in host memory its operations read the rows where they are.
#pragma once

#include "kernels/encoded_rows.h"
#include "kernels/memory.h"

namespace lomu {

class Staging {
 public:
  explicit Staging(Memory& memory) : memory_(memory) {}

  /// The rows where operations on memory.storage() can read them, until the next call. Work that was queued to read the
  /// rows of the call before is not disturbed. Throws MemoryError.
  EncodedRows bring(EncodedRows rows) {
    Storage& storage = memory_.storage();
    if (storage.on_host()) return rows;
    if (buffer_.size() < rows.bytes()) {
      buffer_ = Buffer();
      buffer_ = memory_.allocate(Scope::kWorkspace, rows.bytes(), "weights on their way");
    }
    storage.upload(buffer_.data(), rows.data, rows.bytes());
    rows.data = buffer_.data();
    return rows;
  }

 private:
  Memory& memory_;
  Buffer buffer_;
};

}  // namespace lomu
