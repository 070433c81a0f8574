#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/verify/comparison.h"
#include "engine/verify/loaded_model.h"
#include "kernels/error.h"
#include "models/decoder/decoder.h"
#include "models/decoder/generation.h"
#include "models/decoder/sampler.h"
#include "models/files/hashing.h"
#include "models/files/json_value.h"

namespace lomu::verify {
namespace {

/// What expected.json says of one prompt.
struct Prompt {
  std::vector<std::int32_t> ids;
  double mean_token_loss = 0;
  std::vector<std::int32_t> top_ids;
  std::vector<double> top_logits;
  std::vector<std::int32_t> greedy;
  std::vector<double> margins;
};

struct Results {
  std::string sha256;  ///< of the model file; empty: not stated
  std::vector<Prompt> prompts;
};

std::vector<std::int32_t> ints(const JsonFields& fields, std::string_view key) {
  const auto values = fields.integers(key);
  if (!values) fields.wrong(key, "a list of integers");
  std::vector<std::int32_t> out;
  for (const std::int64_t v : *values) {
    if (v < 0 || v > INT32_MAX) fields.wrong(key, "a list of token ids");
    out.push_back(static_cast<std::int32_t>(v));
  }
  return out;
}

std::vector<double> numbers(const JsonFields& fields, std::string_view key) {
  const JsonValue* value = fields.find(key);
  const JsonArray* list = value != nullptr ? value->if_array() : nullptr;
  if (list == nullptr) fields.wrong(key, "a list of numbers");
  std::vector<double> out;
  for (const JsonValue& v : *list) {
    const auto number = v.if_number();
    if (!number) fields.wrong(key, "a list of numbers");
    out.push_back(*number);
  }
  return out;
}

Prompt read_prompt(const JsonFields& fields) {
  Prompt p;
  p.ids = ints(fields, "ids");
  const auto loss = fields.number("mean_token_loss");
  if (!loss || p.ids.size() < 2) fields.wrong("mean_token_loss", "a number, of at least two ids");
  p.mean_token_loss = *loss;
  const auto top = fields.object("top20_last_position");
  if (!top) fields.wrong("top20_last_position", "an object");
  p.top_ids = ints(*top, "ids");
  p.top_logits = numbers(*top, "logits");
  p.greedy = ints(fields, "greedy_32_ids");
  p.margins = numbers(fields, "greedy_margins");
  if (p.top_ids.size() != p.top_logits.size()) top->wrong("logits", "as long as ids");
  if (p.greedy.size() != p.margins.size()) fields.wrong("greedy_margins", "as long as greedy_32_ids");
  return p;
}

Results read_results(const std::filesystem::path& path) {
  const JsonValue document = read_json_file(path);
  const JsonFields fields(document, path.string());
  Results results;
  if (const auto gguf = fields.object("gguf")) results.sha256 = gguf->string("sha256").value_or("");
  const JsonValue* prompts = fields.find("prompts");
  const JsonArray* list = prompts != nullptr ? prompts->if_array() : nullptr;
  if (list == nullptr) fields.wrong("prompts", "a list");
  for (std::size_t i = 0; i < list->size(); ++i) {
    results.prompts.push_back(read_prompt(JsonFields((*list)[i], path.string(), fmt::format("prompts.{}.", i))));
  }
  return results;
}

/// One document, every token of it supervised.
struct Document {
  explicit Document(std::span<const std::int32_t> tokens)
      : ids(tokens.begin(), tokens.end()),
        positions(tokens.size()),
        cu_seqlens{0, static_cast<std::int32_t>(ids.size())} {
    std::iota(positions.begin(), positions.end(), 0);
  }
  [[nodiscard]] PackedBatch view() const { return {ids, ids, positions, cu_seqlens}; }
  std::vector<std::int32_t> ids, positions, cu_seqlens;
};

class RealModelCase {
 public:
  RealModelCase(const std::filesystem::path& folder, const std::filesystem::path& weights, const Ops& ops, int threads,
                Memory& memory)
      : name_(folder.filename().string()),
        ops_(ops),
        memory_(memory),
        limits_(tolerances_of(ops.precision())),
        results_(read_results(folder / "expected.json")),
        expected_(folder / "expected.safetensors"),
        weights_path_(weights),
        model_(weights, {}, ops, false, threads, memory),
        adapted_(model_.weights(), nullptr, ops, memory) {}

  std::vector<ModelCheck> run() {
    check_file();
    const auto windows = read_ints(expected_, "text.input_ids");
    const auto losses = read_doubles(expected_, "text.window_loss");
    const auto window = static_cast<std::int64_t>(windows.size() / std::max<std::size_t>(1, losses.size()));
    std::int64_t tokens = window;
    for (const Prompt& p : results_.prompts) tokens = std::max(tokens, static_cast<std::int64_t>(p.ids.size()));
    Decoder decoder(adapted_, ops_, memory_, {tokens, tokens, tokens, false});
    for (std::size_t i = 0; i < results_.prompts.size(); ++i) check_prompt(decoder, i);
    check_windows(decoder, windows, losses, window);
    return std::move(checks_);
  }

 private:
  void add(std::string quantity, double error, double tolerance) {
    checks_.push_back(make_check(name_, std::move(quantity), error, tolerance));
  }

  void check_file() {
    if (results_.sha256.empty() || !std::filesystem::is_regular_file(weights_path_)) return;
    const bool same = sha256_of_file(weights_path_) == results_.sha256;
    add("gguf.sha256", same ? 0 : 1, 0);
    if (!same) checks_.back().note = "these results are of another file than the given weights";
  }

  void check_prompt(Decoder& decoder, std::size_t index) {
    const Prompt& prompt = results_.prompts[index];
    const std::string place = fmt::format("prompts.{}.", index);
    const Document document(prompt.ids);
    const double loss = decoder.forward(document.view()) / static_cast<double>(prompt.ids.size() - 1);
    add(place + "mean_token_loss", std::abs(loss - prompt.mean_token_loss), limits_.real_loss);

    const std::int64_t vocab = model_.config().vocab_size;
    const DType dtype = ops_.precision().residual;
    const Buffer buffer = host_.allocate(Scope::kWorkspace, static_cast<std::size_t>(vocab) * size_of(dtype), "logits");
    const Tensor last(buffer.data(), dtype, 1, vocab);
    decoder.logits(document.view(), std::vector<std::int32_t>{static_cast<std::int32_t>(prompt.ids.size()) - 1}, last);
    const auto logits = to_doubles(last);
    const std::string tensor = fmt::format("prompt.{}.last_logits", index);
    const auto reference = read_doubles(expected_, tensor, vocab);
    add(tensor, relative_error(logits, reference), limits_.real_forward);

    std::vector<double> top;
    for (const std::int32_t id : prompt.top_ids) {
      if (id >= vocab) throw FormatError(fmt::format("token id {} in a vocabulary of {}", id, vocab), place);
      top.push_back(logits[static_cast<std::size_t>(id)]);
    }
    add(place + "top20_last_position", relative_error(top, prompt.top_logits), limits_.real_forward);
    check_greedy(prompt, place, largest_difference(logits, reference));
  }

  /// A greedy continuation may leave the reference where the reference's two best logits are closer than both can move:
  /// twice the largest error measured at the prompt's end, and the 1e-4 to which margins are recorded and the
  /// reference's own f32 is right. The error is the margin at that place, 0 if it never leaves; what follows is not
  /// compared, since it continues another text.
  void check_greedy(const Prompt& prompt, const std::string& place, double logit_error) {
    const auto total = static_cast<std::int64_t>(prompt.ids.size() + prompt.greedy.size());
    GenerationSession session(adapted_, ops_, memory_, {1, total, 256});
    std::vector<std::int32_t> next = prompt.ids;
    double error = 0;
    std::string note;
    for (std::size_t i = 0; i < prompt.greedy.size(); ++i) {
      const SequenceInput input{0, next};
      const std::int32_t token = choose_token(session.append({&input, 1}), 0, {}, 0, session.length(0));
      if (token != prompt.greedy[i]) {
        error = prompt.margins[i];
        note = fmt::format("leaves the reference at token {}, whose margin is {}", i, error);
        break;
      }
      next = {token};
    }
    add(place + "greedy_32_ids", error, 2 * logit_error + 1e-4);
    checks_.back().note = note;
  }

  void check_windows(Decoder& decoder, std::span<const std::int32_t> windows, std::span<const double> losses,
                     std::int64_t window) {
    const auto size = static_cast<std::size_t>(window);
    // The specification makes some billion operations a second: all windows would take it a quarter of an hour.
    const std::size_t count = ops_.name() == "reference" ? std::min<std::size_t>(1, losses.size()) : losses.size();
    std::vector<double> per_token;
    for (std::size_t i = 0; i < count; ++i) {
      const Document document(windows.subspan(i * size, size));
      std::vector<double> of_window(size);
      const double loss = decoder.forward(document.view(), of_window) / static_cast<double>(size - 1);
      add(fmt::format("text.window_losses.{}", i), std::abs(loss - losses[i]), limits_.real_loss);
      per_token.insert(per_token.end(), of_window.begin(), of_window.end() - 1);
    }
    auto reference =
        read_doubles(expected_, "text.per_token_loss", static_cast<std::int64_t>(losses.size() * (size - 1)));
    reference.resize(per_token.size());
    add("text.per_token_loss", relative_error(per_token, reference), limits_.real_forward);
    if (count < losses.size()) checks_.back().note = fmt::format("{} of {} windows", count, losses.size());
  }

  std::string name_;
  const Ops& ops_;
  Memory& memory_;  ///< of ops_
  Memory host_;
  Tolerances limits_;
  Results results_;
  SafetensorsFile expected_;
  std::filesystem::path weights_path_;
  LoadedModel model_;
  AdaptedModel adapted_;
  std::vector<ModelCheck> checks_;
};

}  // namespace

std::vector<ModelCheck> verify_real_model(const std::filesystem::path& folder, const std::filesystem::path& weights,
                                          const Ops& ops, int threads, Memory& memory) {
  return RealModelCase(folder, weights, ops, threads, memory).run();
}

}  // namespace lomu::verify
