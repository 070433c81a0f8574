#include "engine/train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/train/sharded_step.h"
#include "kernels/error.h"
#include "models/files/atomic_file.h"
#include "models/files/hashing.h"
#include "models/files/peft_adapter.h"
#include "models/files/safetensors.h"
#include "models/files/safetensors_writer.h"

namespace lomu {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 1;
constexpr std::string_view kPrefix = "step-";
constexpr std::size_t kKept = 2;  // the newest, and one more should a disk lose it

std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [last, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || last != end) return std::nullopt;
  return step;
}

/// Whole checkpoints under `folder`, newest first.
std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (step_of(entry.path()) && fs::exists(entry.path() / "checkpoint.json", error)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return *step_of(a) > *step_of(b); });
  return found;
}

constexpr const char* kFull = ".weight";  // a weight trained in full, beside the factors of pairs

/// One array of a pair as it lies in state.safetensors.
struct Array {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<const float> values;
};

std::vector<std::int64_t> left_shape(const PairInfo& p) {
  return {p.out, p.rank};
}
std::vector<std::int64_t> right_shape(const PairInfo& p) {
  return {p.rank, p.in};
}

/// An array of state of one pair, and where it begins in the pair's state.
struct StateArray {
  std::string name;
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;
  std::size_t size = 0;
};

std::vector<StateArray> state_arrays(const PairInfo& p, const Optimizer& optimizer) {
  std::vector<StateArray> arrays;
  const ParameterShape shape = parameter_shape(p);
  std::size_t offset = 0;
  for (const StateSlot& slot : optimizer.state_slots(shape)) {
    const auto [rows, columns] = dimensions(slot, shape);
    const auto size = static_cast<std::size_t>(rows * columns);
    if (size > 0) arrays.push_back({fmt::format("{}.{}", p.name, slot.name), {rows, columns}, offset, size});
    offset += size;
  }
  return arrays;
}

std::vector<Array> arrays_of(const AdapterSet& adapters, const Optimizer& optimizer,
                             const std::vector<std::vector<float>>& state) {
  std::vector<Array> arrays;
  for (std::size_t i = 0; i < adapters.pairs().size(); ++i) {
    const PairInfo& p = adapters.pairs()[i];
    if (p.full) {
      arrays.push_back({p.name + kFull, left_shape(p), adapters.b(p)});
    } else {
      arrays.push_back({p.name + ".lora_A", right_shape(p), adapters.a(p)});
      arrays.push_back({p.name + ".lora_B", left_shape(p), adapters.b(p)});
    }
    for (StateArray& array : state_arrays(p, optimizer)) {
      const auto values = std::span(state[i]).subspan(array.offset, array.size);
      arrays.push_back({std::move(array.name), std::move(array.shape), values});
    }
  }
  return arrays;
}

void write_state(const fs::path& file, const std::vector<Array>& arrays) {
  std::vector<TensorSpec> specs;
  for (const Array& array : arrays) specs.push_back({array.name, DType::kF32, array.shape});
  SafetensorsWriter writer(file, std::move(specs));
  for (const TensorSpec& spec : writer.tensors()) {
    const auto found =
        std::find_if(arrays.begin(), arrays.end(), [&](const Array& array) { return array.name == spec.name; });
    writer.write(found->values);
  }
  writer.commit();
}

nlohmann::json read_json(const fs::path& file) {
  std::ifstream in(file);
  if (!in) throw FileError("cannot read the checkpoint", file.string());
  auto object = nlohmann::json::parse(in, nullptr, false);
  if (!object.is_object()) throw FormatError("the checkpoint's description is no JSON object", file.string());
  return object;
}

}  // namespace

void write_checkpoint(const fs::path& folder, const CheckpointHead& head, const AdapterSet& adapters,
                      const Optimizer& optimizer, const std::vector<std::vector<float>>& state,
                      const std::string& base_model, const ModelConfig& config) {
  AtomicFolder target(folder / fmt::format("{}{:08}", kPrefix, head.step), IfExists::kReplace);
  write_state(target.path() / "state.safetensors", arrays_of(adapters, optimizer, state));
  // A checkpoint of a LoRA run is an adapter that can be used; one of a model's own weights is for going on alone.
  AdapterFile adapter = adapters.to_file(base_model);
  if (!adapter.pairs.empty() && !config.without_base) write_peft_adapter(target.path() / "adapter", adapter, config);
  const nlohmann::ordered_json description = {{"format", kFormat},
                                              {"step", head.step},
                                              {"data", fmt::format("{:016x}", head.data)},
                                              {"model", head.model},
                                              {"job", head.job},
                                              {"left_started_zero", head.left_started_zero},
                                              {"sha256", sha256_of_file(target.path() / "state.safetensors")}};
  write_file(target.path() / "checkpoint.json", description.dump(2) + "\n");
  target.commit();
  const std::vector<fs::path> all = checkpoints_in(folder);
  for (std::size_t i = kKept; i < all.size(); ++i) {
    std::error_code error;  // an old checkpoint that stays is no reason to stop a run
    fs::remove_all(all[i], error);
  }
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  const std::vector<fs::path> all = checkpoints_in(folder);
  if (all.empty()) return std::nullopt;
  return all.front();
}

LoadedCheckpoint read_checkpoint(const fs::path& checkpoint, AdapterSet& adapters, const Optimizer& optimizer) {
  LoadedCheckpoint loaded;
  const fs::path description = checkpoint / "checkpoint.json";
  const fs::path state_file = checkpoint / "state.safetensors";
  const nlohmann::json object = read_json(description);
  std::string checksum;
  try {
    if (object.at("format").get<int>() != kFormat) {
      throw FormatError(fmt::format("checkpoint format {} is not {}", object.at("format").get<int>(), kFormat),
                        description.string(), "resume with the version of lomu that wrote it");
    }
    loaded.head.step = object.at("step").get<std::int64_t>();
    loaded.head.data = std::stoull(object.at("data").get<std::string>(), nullptr, 16);
    loaded.head.model = object.at("model").get<std::string>();
    loaded.head.job = object.at("job").get<std::string>();
    loaded.head.left_started_zero = object.at("left_started_zero").get<bool>();
    checksum = object.at("sha256").get<std::string>();
  } catch (const nlohmann::json::exception& e) {
    throw FormatError(fmt::format("the checkpoint's description lacks something: {}", e.what()), description.string());
  } catch (const std::logic_error& e) {
    throw FormatError(fmt::format("the checkpoint's description has a wrong value: {}", e.what()),
                      description.string());
  }
  if (sha256_of_file(state_file) != checksum) {
    throw FormatError("the checkpoint is damaged: its checksum is another", state_file.string(),
                      "remove this checkpoint; --resume then takes the one before");
  }
  const SafetensorsFile file(state_file);
  const auto read = [&](const std::string& name, const std::vector<std::int64_t>& shape, std::span<float> out) {
    const SafetensorInfo& info = file.at(name);
    if (info.shape != shape)
      throw FormatError("a tensor of the checkpoint has another shape", state_file.string() + ", " + name);
    file.read_f32(name, out);
  };
  for (const PairInfo& p : adapters.pairs()) {
    if (p.full) {
      read(p.name + kFull, left_shape(p), adapters.b(p));
    } else {
      read(p.name + ".lora_A", right_shape(p), adapters.a(p));
      read(p.name + ".lora_B", left_shape(p), adapters.b(p));
    }
    std::vector<float> state(static_cast<std::size_t>(optimizer.state_size(parameter_shape(p))));
    for (const StateArray& array : state_arrays(p, optimizer)) {
      read(array.name, array.shape, std::span(state).subspan(array.offset, array.size));
    }
    loaded.state.push_back(std::move(state));
  }
  return loaded;
}

}  // namespace lomu
