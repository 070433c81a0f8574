#include "engine/train/event_file.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>

#include "kernels/error.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = value;
  }
  return table;
}

template <class T>
std::string little_endian(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
  return bytes;
}

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

// Fields of a protocol buffer: the key is number x 8 + wire type.
std::string varint_field(std::uint64_t number, std::uint64_t value) {
  return varint((number << 3) | 0) + varint(value);
}
std::string double_field(std::uint64_t number, double value) {
  return varint((number << 3) | 1) + little_endian(std::bit_cast<std::uint64_t>(value));
}
std::string bytes_field(std::uint64_t number, std::string_view bytes) {
  return varint((number << 3) | 2) + varint(bytes.size()) + std::string(bytes);
}
std::string float_field(std::uint64_t number, float value) {
  return varint((number << 3) | 5) + little_endian(std::bit_cast<std::uint32_t>(value));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string event(double wall_time, std::int64_t step) {
  return double_field(1, wall_time) + varint_field(2, static_cast<std::uint64_t>(step));
}

/// A name that no file in the folder has and that sorts after theirs, as TensorBoard reads them by name.
fs::path new_file(const fs::path& folder) {
  const auto seconds = static_cast<std::int64_t>(now());
  for (int number = 0;; ++number) {
    fs::path path = folder / fmt::format("events.out.tfevents.{:010}.lomu.{:04}", seconds, number);
    if (!fs::exists(path)) return path;
  }
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc_table();
  std::uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

std::string tf_record(std::string_view message) {
  const std::string length = little_endian(static_cast<std::uint64_t>(message.size()));
  return length + little_endian(masked_crc32c(length)) + std::string(message) + little_endian(masked_crc32c(message));
}

std::string scalar_event(double wall_time, std::int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    summary += bytes_field(1, bytes_field(1, scalar.tag) + float_field(2, static_cast<float>(scalar.value)));
  }
  return event(wall_time, step) + bytes_field(5, summary);
}

std::vector<Scalar> scalars_of(const StepMetrics& m) {
  std::vector<Scalar> scalars = {{"loss/train", m.loss},
                                 {"lr", m.lr},
                                 {"norm/gradient", m.grad_norm},
                                 {"norm/update", m.update_norm},
                                 {"norm/largest_relative_step", m.max_relative_step},
                                 {"tokens_per_second", m.tokens_per_second}};
  if (m.validation_loss) scalars.push_back({"loss/validation", *m.validation_loss});
  for (const NamedFigures& pair : m.pairs) {
    const auto values = pair.figures.values();
    for (std::size_t i = 0; i < kFigures; ++i) {
      if (!std::isfinite(values[i])) continue;
      scalars.push_back({fmt::format("pairs/{}/{}", name_of(static_cast<Figure>(i)), pair.name), values[i]});
    }
  }
  return scalars;
}

EventFile::EventFile(const fs::path& folder, std::int64_t last_step) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw FileError(fmt::format("cannot make the folder: {}", error.message()), folder.string());
  path_ = new_file(folder);
  out_.open(path_, std::ios::binary);
  if (!out_) throw FileError(fmt::format("cannot write: {}", std::strerror(errno)), path_.string());
  write(double_field(1, now()) + bytes_field(3, "brain.Event:2"));
  // SessionLog with status (field 1) START: steps from here on replace those of earlier files.
  if (last_step > 0) write(event(now(), last_step + 1) + bytes_field(7, varint_field(1, 1)));
}

void EventFile::append(const StepMetrics& metrics) {
  write(scalar_event(now(), metrics.step, scalars_of(metrics)));
}

void EventFile::write(const std::string& message) {
  const std::string record = tf_record(message);
  out_.write(record.data(), static_cast<std::streamsize>(record.size())).flush();
  if (!out_) {
    throw FileError("cannot write the events: is the disk full?", path_.string(),
                    "free some space; --resume goes on from the last checkpoint");
  }
}

}  // namespace lomu
