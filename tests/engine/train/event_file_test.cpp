// Events for TensorBoard, read back by a reader written here from the description of the format: frames, checksums bit
// by bit, fields by their wire types. And by TensorBoard itself where it is installed.
#include "engine/train/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/train/tiny_run.h"

namespace lomu {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Key;
using testing::StartsWith;

/// Of the polynomial x^32 + x^28 + ... (0x1edc6f41), most significant bit first, on mirrored bytes.
std::uint32_t crc_by_bits(std::string_view bytes) {
  const auto mirrored = [](std::uint32_t value, int bits) {
    std::uint32_t out = 0;
    for (int i = 0; i < bits; ++i) out |= (value >> i & 1u) << (bits - 1 - i);
    return out;
  };
  std::uint32_t remainder = 0xffffffffu;
  for (const char c : bytes) {
    remainder ^= mirrored(static_cast<unsigned char>(c), 8) << 24;
    for (int bit = 0; bit < 8; ++bit) {
      const bool carry = (remainder & 0x80000000u) != 0;
      remainder <<= 1;
      if (carry) remainder ^= 0x1edc6f41u;
    }
  }
  return ~mirrored(remainder, 32);
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }
  std::string_view take(std::size_t count) {
    if (count > bytes_.size()) throw std::runtime_error("cut");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::uint64_t little_endian(std::size_t count) {
    std::uint64_t value = 0;
    const std::string_view taken = take(count);
    for (std::size_t i = count; i-- > 0;) value = value * 256 + static_cast<unsigned char>(taken[i]);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("a varint without end");
  }

 private:
  std::string_view bytes_;
};

/// Messages of a file whose frames and checksums are right.
std::vector<std::string> messages_of(std::string_view file) {
  const auto unmasked = [](std::uint64_t masked) {
    const auto rotated = static_cast<std::uint32_t>(masked - 0xa282ead8u);
    return rotated >> 17 | rotated << 15;
  };
  std::vector<std::string> messages;
  for (Reader in(file); !in.at_end();) {
    const std::string_view head = in.take(8);
    EXPECT_EQ(unmasked(in.little_endian(4)), crc_by_bits(head));
    messages.emplace_back(in.take(Reader(head).little_endian(8)));
    EXPECT_EQ(unmasked(in.little_endian(4)), crc_by_bits(messages.back()));
  }
  return messages;
}

/// Number and bytes (or the bytes of the number) of each field of a message, and the numbers of varints.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;  ///< of a varint, or the bits of a fixed number
  std::string bytes;
};
std::vector<Field> fields_of(std::string_view message) {
  std::vector<Field> fields;
  for (Reader in(message); !in.at_end();) {
    const std::uint64_t key = in.varint();
    Field& field = fields.emplace_back(Field{key >> 3, 0, {}});
    switch (key & 7) {
      case 0: field.value = in.varint(); break;
      case 1: field.value = in.little_endian(8); break;
      case 2: field.bytes = in.take(in.varint()); break;
      case 5: field.value = in.little_endian(4); break;
      default: throw std::runtime_error("an unknown wire type");
    }
  }
  return fields;
}

struct Event {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string version;
  bool starts_anew = false;
  std::map<std::string, float> scalars;
};

Event event_of(std::string_view message) {
  Event event;
  for (const Field& field : fields_of(message)) {
    if (field.number == 1) std::memcpy(&event.wall_time, &field.value, 8);
    if (field.number == 2) event.step = static_cast<std::int64_t>(field.value);
    if (field.number == 3) event.version = field.bytes;
    if (field.number == 7) event.starts_anew = fields_of(field.bytes).at(0).value == 1;
    if (field.number != 5) continue;
    for (const Field& value : fields_of(field.bytes)) {
      const std::vector<Field> parts = fields_of(value.bytes);
      const auto bits = static_cast<std::uint32_t>(parts.at(1).value);
      std::memcpy(&event.scalars[parts.at(0).bytes], &bits, 4);
    }
  }
  return event;
}

std::vector<Event> events_of(std::string_view file) {
  std::vector<Event> events;
  for (const std::string& message : messages_of(file)) events.push_back(event_of(message));
  return events;
}

TEST(EventFile, ChecksumIsThePublishedOne) {
  // RFC 3720, B.4: 32 bytes of zeros have the CRC-32C aa 36 91 8a, stored low byte first.
  EXPECT_EQ(crc_by_bits(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc_by_bits("123456789"), 0xe3069283u);
  for (const std::string text : {"", "a", "123456789"}) {
    const std::uint32_t crc = crc_by_bits(text);
    EXPECT_EQ(masked_crc32c(text), (crc >> 15 | crc << 17) + 0xa282ead8u) << text;
  }
}

TEST(EventFile, AMessageComesBackWhole) {
  // A long tag needs two bytes of length, a late step several of varint.
  const std::string tag(300, 'x');
  const std::vector<Event> events = events_of(tf_record(scalar_event(1.5, 123456789012, {{tag, -0.25}, {"b", 3e30}})));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].wall_time, 1.5);
  EXPECT_EQ(events[0].step, 123456789012);
  EXPECT_THAT(events[0].scalars, ElementsAre(std::pair("b", 3e30f), std::pair(tag, -0.25f)));
}

class RunEvents : public testing::Test {
 protected:
  [[nodiscard]] std::vector<nlohmann::json> metrics(const std::string& out) const {
    std::vector<nlohmann::json> steps;
    std::istringstream lines(run_.read(out + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) steps.push_back(nlohmann::json::parse(line));
    return steps;
  }
  void train(const std::string& out, std::vector<std::string> settings) {
    settings.insert(settings.end(), {"telemetry.tensorboard=true", "telemetry.every=3", "data.validation_split=0.2"});
    const Outcome outcome = run_.train(out, settings);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  TinyRun run_;
};

TEST_F(RunEvents, SayWhatTheMetricsSay) {
  train("out", {"runtime.ranks_in_process=2"});
  const std::vector<std::string> files = run_.list("out/events");
  ASSERT_EQ(files.size(), 1u);
  EXPECT_THAT(files[0], StartsWith("events.out.tfevents."));
  const std::vector<Event> events = events_of(run_.read("out/events/" + files[0]));
  const std::vector<nlohmann::json> steps = metrics("out");
  ASSERT_EQ(events.size(), steps.size() + 1);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Event& event = events[i + 1];
    EXPECT_GT(event.wall_time, 1.7e9);
    EXPECT_EQ(event.step, steps[i]["step"].get<std::int64_t>());
    EXPECT_EQ(event.scalars.at("loss/train"), steps[i]["loss"].get<float>());
    EXPECT_EQ(event.scalars.at("lr"), steps[i]["lr"].get<float>());
    EXPECT_EQ(event.scalars.at("norm/gradient"), steps[i]["grad_norm"].get<float>());
    EXPECT_EQ(event.scalars.contains("loss/validation"), steps[i].contains("validation_loss"));
    if (!steps[i].contains("pairs")) continue;
    for (const auto& pair : steps[i]["pairs"]) {
      const std::string tag = "pairs/stable_rank/" + pair["name"].get<std::string>();
      EXPECT_EQ(event.scalars.at(tag), pair["stable_rank"].get<float>());
    }
  }
  EXPECT_THAT(events.back().scalars, Contains(Key(StartsWith("pairs/momentum_left_median/"))));
}

TEST_F(RunEvents, AreMadeOnlyWhenAskedForAndReplacedWithTheRun) {
  ASSERT_EQ(run_.train("out").code, 0);
  EXPECT_TRUE(run_.list("out/events").empty());
  train("out", {"output.overwrite=true"});
  train("out", {"output.overwrite=true"});
  EXPECT_EQ(run_.list("out/events").size(), 1u);
}

TEST_F(RunEvents, TensorBoardReadsThem) {
  train("out", {});
  const char* named = std::getenv("LOMU_PYTHON");
  ProcessOptions options;
  options.folder = run_.path(".");
  options.patience = 300;
  const Outcome read =
      Process({named == nullptr ? "python3" : named, LOMU_EVENT_CASE, run_.path("out/events").string()}, options)
          .wait();
  if (read.code == 77 || read.code == 127) GTEST_SKIP() << "needs a Python with tensorboard (LOMU_PYTHON=...)";
  ASSERT_EQ(read.code, 0) << read.err;
  std::map<std::string, std::map<std::int64_t, double>> found;
  std::istringstream lines(read.out);
  std::string tag;
  std::int64_t step = 0;
  double value = 0;
  while (lines >> tag >> step >> value) found[tag][step] = value;
  const std::vector<nlohmann::json> steps = metrics("out");
  ASSERT_EQ(found["loss/train"].size(), steps.size());
  for (const auto& line : steps) {
    EXPECT_FLOAT_EQ(static_cast<float>(found["loss/train"][line["step"].get<std::int64_t>()]),
                    line["loss"].get<float>());
  }
  EXPECT_EQ(found["loss/validation"].size(), 1u);
  EXPECT_THAT(found, Contains(Key(StartsWith("pairs/product_largest/"))));
}

TEST_F(RunEvents, OfARunThatGoesOnReplaceLaterSteps) {
  const EventFile first(run_.path("events"), 0);
  const EventFile second(run_.path("events"), 4);
  const std::vector<std::string> files = run_.list("events");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(events_of(run_.read("events/" + files[0])).size(), 1u);
  const std::vector<Event> events = events_of(run_.read("events/" + files[1]));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].step, 5);
  EXPECT_TRUE(events[1].starts_anew);
}

}  // namespace
}  // namespace lomu
