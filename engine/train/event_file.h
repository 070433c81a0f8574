// Scalars for TensorBoard, in its own file format, written here: a TFRecord of Event messages. Nothing else of
// TensorBoard (no histograms, no graphs) and no library of it.
//
// A record is length (8 bytes, little-endian), masked CRC-32C of the length (4), the message, masked CRC-32C of the
// message (4). An Event is a protocol buffer: wall_time (field 1, double), step (2, varint), file_version (3, text),
// summary (5) of values (1), each with tag (1, text) and simple_value (2, float), or session_log (7).
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/train/metrics.h"

namespace lomu {

/// CRC-32C (Castagnoli, reflected 0x82f63b78) as TFRecord masks it: rotated right by 15 and 0xa282ead8 added.
std::uint32_t masked_crc32c(std::string_view bytes);

/// `message` with its frame.
std::string tf_record(std::string_view message);

struct Scalar {
  std::string tag;
  double value = 0;
};

/// An Event with the scalars of one step.
std::string scalar_event(double wall_time, std::int64_t step, const std::vector<Scalar>& scalars);

/// What TensorBoard shows of a step: loss/train, loss/validation, lr, norms, tokens_per_second, and pairs/FIGURE/NAME.
std::vector<Scalar> scalars_of(const StepMetrics& metrics);

class EventFile {
 public:
  /// A new file in `folder`, which is made when it is missing. A run that goes on after step `last_step` > 0 says so:
  /// TensorBoard then forgets what earlier files say of later steps. Throws FileError.
  EventFile(const std::filesystem::path& folder, std::int64_t last_step);

  /// Throws FileError, for example on a full disk.
  void append(const StepMetrics& metrics);

 private:
  void write(const std::string& message);

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace lomu
