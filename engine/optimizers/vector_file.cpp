#include "engine/optimizers/vector_file.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/error.h"

namespace lomu {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kFormat = "lora-muon-vectors/1";
constexpr std::int64_t kLargestDimension = std::int64_t{1}
                                           << 24;  // far above any layer, and no product of two overflows

/// One case of a file, and how to name it in a message.
class CaseReader {
 public:
  CaseReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) throw FormatError("a case must be an object", where_);
    const Json& name = field("name");
    if (!name.is_string()) fail("name", "must be text");
    name_ = name.get<std::string>();
    where_ += fmt::format(" (\"{}\")", name_);
  }

  [[nodiscard]] const std::string& name() const { return name_; }

  [[nodiscard]] std::int64_t dimension(const char* key) const {
    const Json& value = field(key);
    if (!value.is_number_integer()) fail(key, "must be a whole number");
    const auto number =
        value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(kLargestDimension)
            ? kLargestDimension + 1
            : value.get<std::int64_t>();
    if (number < 1 || number > kLargestDimension) fail(key, fmt::format("must be from 1 to {}", kLargestDimension));
    return number;
  }

  [[nodiscard]] double number(const char* key) const {
    const Json& value = field(key);
    if (!value.is_number()) fail(key, "must be a number");
    return value.get<double>();
  }

  [[nodiscard]] double number_in(const char* key, double least, double below) const {
    const double value = number(key);
    if (!(value >= least && value < below))
      fail(key, fmt::format("is {:g}, which is not in [{:g}, {:g})", value, least, below));
    return value;
  }

  [[nodiscard]] bool is_null(const char* key) const { return field(key).is_null(); }

  [[nodiscard]] std::vector<double> array(const char* key, std::int64_t rows, std::int64_t columns) const {
    const Json& value = field(key);
    if (!value.is_array()) fail(key, "must be an array of numbers");
    if (static_cast<std::int64_t>(value.size()) != rows * columns) {
      fail(key, fmt::format("has {} numbers, {} x {} = {} are needed", value.size(), rows, columns, rows * columns));
    }
    std::vector<double> numbers;
    numbers.reserve(value.size());
    for (const Json& item : value) {
      if (!item.is_number()) fail(key, fmt::format("has an entry that is not a number, at index {}", numbers.size()));
      numbers.push_back(item.get<double>());
    }
    return numbers;
  }

  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw FormatError(fmt::format("field \"{}\" {}", key, what), where_);
  }

 private:
  [[nodiscard]] const Json& field(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) fail(key, "is missing");
    return *found;
  }

  const Json& json_;
  std::string where_;
  std::string name_;
};

LoraMuonCase read_case(const CaseReader& reader) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  LoraMuonCase out;
  out.name = reader.name();
  ReferenceProblem& p = out.problem;
  p.m = reader.dimension("m");
  p.n = reader.dimension("n");
  p.r = reader.dimension("r");
  p.lr = reader.number_in("lr", 0.0, kAny);
  p.scale = reader.number_in("scale", std::numeric_limits<double>::min(), kAny);
  p.momentum = reader.number_in("momentum", 0.0, 1.0);
  p.weight_decay = reader.number_in("weight_decay", 0.0, kAny);
  if (p.weight_decay * p.lr >= 1.0) reader.fail("weight_decay", "times \"lr\" is not less than 1");
  if (!reader.is_null("damping"))
    p.damping_right = reader.number_in("damping", std::numeric_limits<double>::min(), kAny);
  p.before = {reader.array("left", p.m, p.r), reader.array("right", p.n, p.r), reader.array("momentum_left", p.m, p.r),
              reader.array("momentum_right", p.n, p.r)};
  p.grad_left = reader.array("grad_left", p.m, p.r);
  p.grad_right = reader.array("grad_right", p.n, p.r);
  out.expected = {reader.array("expect_left", p.m, p.r), reader.array("expect_right", p.n, p.r),
                  reader.array("expect_momentum_left", p.m, p.r), reader.array("expect_momentum_right", p.n, p.r)};
  return out;
}

Json parse(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in || std::filesystem::is_directory(path))
    throw FileError("cannot open the file of reference cases", path.string());
  try {
    return Json::parse(in);
  } catch (const Json::exception& error) {
    throw FormatError(fmt::format("not valid JSON: {}", error.what()), path.string());
  }
}

}  // namespace

std::vector<LoraMuonCase> read_lora_muon_cases(const std::filesystem::path& path) {
  const Json file = parse(path);
  if (!file.is_object() || !file.contains("format") || file["format"] != kFormat) {
    throw FormatError(fmt::format("field \"format\" must be \"{}\"", kFormat), path.string(),
                      "this command reads cases of the optimizer");
  }
  if (!file.contains("cases") || !file["cases"].is_array()) {
    throw FormatError("field \"cases\" must be an array", path.string());
  }
  std::vector<LoraMuonCase> cases;
  for (const Json& item : file["cases"]) {
    cases.push_back(read_case(CaseReader(item, fmt::format("{}: case {}", path.string(), cases.size()))));
  }
  return cases;
}

}  // namespace lomu
