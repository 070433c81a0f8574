// All of cuDNN and its frontend in one file, which takes half a minute and 2 GB to compile.
//
// What the graphs may rely on, of cuDNN 9.19 and the frontend 1.32:
//  - Packed sequences need offsets and lengths together, causal masks both bounds of the diagonal band.
//  - max_total_seq_len bounds the float32 sums of a backward pass by the tokens instead of by sequences x longest.
//  These
//    sums lie at the gradients' own offsets, so the first offset must be 0. (On 8.x it is ignored.)
//  - A deterministic backward pass keeps the score gradients, the square of the length, on 9.x; is refused for packed
//    sequences on 8.x; and takes memory in proportion to the tokens on 10.x.
//  - The forward pass is deterministic (the support matrix of the frontend's page on attention, for 8.x to 10.x). The
//    numerical note NONDETERMINISTIC would be no help: engines of the nondeterministic backward pass do not bear it.
#include "kernels/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/error.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the frontend's name for the library that it takes its functions from
}  // namespace cudnn_frontend

namespace lomu::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

static_assert(CUDNN_FRONTEND_VERSION >= 13200, "older ones got workspaces of packed log-sum-exps wrong");
constexpr std::size_t kOldest = 91900;  // what the graphs are checked against

/// Why the library cannot be used; empty if it can. Loads it once.
const std::string& load() {
  static const std::string refusal = [] {
    for (const char* name : {"libcudnn.so.9", LOMU_CUDNN_FOLDER "/libcudnn.so.9"}) {
      if (fe::cudnn_dlhandle == nullptr) fe::cudnn_dlhandle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (fe::cudnn_dlhandle == nullptr) return std::string("libcudnn.so.9 is not found");
    if (fe::detail::get_backend_version() >= kOldest) return std::string();
    return fmt::format("version {} is older than {}", fe::detail::get_backend_version(), kOldest);
  }();
  return refusal;
}

void check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw Error(fmt::format("{}: {}", call, fe::detail::get_error_string(status)), "cuDNN");
}

/// The beginning of what the frontend says, which may be many lines.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return text.substr(0, 400);
}

void check(fe::error_t status) {
  if (status.is_bad()) throw Error(one_line(status.get_message()), "cuDNN");
}

/// Names of a graph's tensors. Offsets of matrices with the same stride are one tensor: kOffsets + stride.
enum Uid : std::int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kLse,
  kDout,
  kDq,
  kDk,
  kDv,
  kQueryLengths,
  kKeyLengths,
  kOffsets = 100
};

class Graph : public fe::graph::Graph {
 public:
  /// Bytes in front of the engine's own workspace.
  [[nodiscard]] std::int64_t sums_bytes() const { return get_fe_workspace_size_subtree(); }
};

/// Writes an AttentionGraph into the frontend's terms.
class Description {
 public:
  Description(const AttentionGraph& a, int capability, fe::DataType_t type) : a_(a), graph_(std::make_unique<Graph>()) {
    graph_->set_sm_version(capability);  // before any operation, or it is asked of a device
    graph_->set_io_data_type(type)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const Attributes q = input(kQ, "q", a.heads, a.q_ld);
    const Attributes k = input(kK, "k", a.kv_heads, a.k_ld);
    const Attributes v = input(kV, "v", a.kv_heads, a.v_ld);
    if (a.pass == AttentionPass::kForward) {
      forward(q, k, v);
    } else {
      backward(q, k, v);
    }
  }
  std::unique_ptr<Graph> take() { return std::move(graph_); }

 private:
  void forward(const Attributes& q, const Attributes& k, const Attributes& v) {
    auto options = fe::graph::SDPA_attributes().set_name("attention");
    set_common(options);
    options.set_generate_stats(a_.lse != LseLayout::kNone);
    const auto [out, lse] = graph_->sdpa(q, k, v, options);
    make_output(out, kOut, "out", a_.heads, a_.out_ld);
    if (lse == nullptr) return;
    lse->set_output(true).set_uid(kLse).set_data_type(fe::DataType_t::FLOAT);
    lay_out_lse(lse);
  }

  void backward(const Attributes& q, const Attributes& k, const Attributes& v) {
    const Attributes out = input(kOut, "out", a_.heads, a_.out_ld);
    const Attributes dout = input(kDout, "dout", a_.heads, a_.dout_ld);
    const Attributes lse = named(kLse, "lse");
    lse->set_data_type(fe::DataType_t::FLOAT);
    lay_out_lse(lse);
    auto options = fe::graph::SDPA_backward_attributes().set_name("attention backward");
    set_common(options);
    options.set_deterministic_algorithm(a_.pass == AttentionPass::kDeterministicBackward);
    const auto most = static_cast<int>(a_.max_tokens);
    options.set_max_total_seq_len_q(most).set_max_total_seq_len_kv(most);
    const auto [dq, dk, dv] = graph_->sdpa_backward(q, k, v, out, dout, lse, options);
    make_output(dq, kDq, "dq", a_.heads, a_.heads * a_.head_dim);
    make_output(dk, kDk, "dk", a_.kv_heads, a_.kv_heads * a_.head_dim);
    make_output(dv, kDv, "dv", a_.kv_heads, a_.kv_heads * a_.head_dim);
  }

  template <class Options>
  void set_common(Options& options) {
    options.set_attn_scale(a_.scale);
    options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    if (a_.window > 0) options.set_diagonal_band_left_bound(static_cast<int>(a_.window));
    options.set_padding_mask(true).set_seq_len_q(lengths(kQueryLengths)).set_seq_len_kv(lengths(kKeyLengths));
  }

  Attributes named(Uid uid, const char* name) {
    return graph_->tensor(fe::graph::Tensor_attributes().set_name(name).set_uid(uid));
  }
  Attributes integers(std::int64_t uid, const std::string& name, std::int64_t count) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_name(name)
                              .set_uid(uid)
                              .set_dim({count, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
  }
  Attributes lengths(Uid uid) {
    return integers(uid, uid == kQueryLengths ? "query lengths" : "key lengths", a_.sequences);
  }
  Attributes offsets(std::int64_t stride) {
    Attributes& made = offsets_[stride];
    if (made == nullptr) made = integers(kOffsets + stride, fmt::format("offsets {}", stride), a_.sequences + 1);
    return made;
  }

  /// Logically [sequences, heads, length, features]; in memory a token's heads are together.
  void lay_out(const Attributes& tensor, std::int64_t heads, std::int64_t ld) {
    tensor->set_dim({a_.sequences, heads, a_.max_length, a_.head_dim})
        .set_stride({a_.max_length * ld, a_.head_dim, ld, 1})
        .set_ragged_offset(offsets(ld));
  }
  void lay_out_lse(const Attributes& lse) {
    const std::int64_t row = a_.max_length;
    lse->set_dim({a_.sequences, a_.heads, row, 1});
    if (a_.lse == LseLayout::kPadded) {
      lse->set_stride({row * a_.heads, row, 1, 1});
    } else {
      lse->set_stride({row * a_.heads, 1, a_.heads, 1}).set_ragged_offset(offsets(a_.heads));
    }
  }
  Attributes input(Uid uid, const char* name, std::int64_t heads, std::int64_t ld) {
    Attributes tensor = named(uid, name);
    lay_out(tensor, heads, ld);
    return tensor;
  }
  void make_output(const Attributes& tensor, Uid uid, const char* name, std::int64_t heads, std::int64_t ld) {
    tensor->set_output(true).set_name(name).set_uid(uid);
    lay_out(tensor, heads, ld);
  }

  const AttentionGraph& a_;
  std::unique_ptr<Graph> graph_;
  std::unordered_map<std::int64_t, Attributes> offsets_;
};

/// A device, or the description of one.
struct Target {
  int capability = 0;              ///< 90 for 9.0
  cudnnHandle_t handle = nullptr;  ///< null for a description
  std::shared_ptr<const fe::DeviceProperties> properties;
};

/// Asks whether the target can do it and, on a device, makes the kernels. Returns the bytes of workspace; throws Error
/// with what was refused.
std::size_t prepare(Graph& graph, const Target& target) {
  if (target.properties != nullptr) graph.set_device_properties(target.properties);
  check(graph.validate());
  check(graph.build_operation_graph(target.handle));
  check(graph.create_execution_plans({fe::HeurMode_t::A}));
  check(graph.check_support());
  if (target.handle != nullptr) {
    check(graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE));
    return static_cast<std::size_t>(graph.get_workspace_size());
  }
  // Without kernels nothing knows the workspace but the refusal of a plan that may have less than none.
  graph.deselect_workspace_greater_than(-1);
  const std::string answer = graph.check_support().get_message();
  const std::string mark = "workspace violation. Requires ";
  const std::size_t at = answer.find(mark);
  if (at == std::string::npos) throw Error("no figure for the workspace: " + one_line(answer), "cuDNN");
  return std::strtoull(answer.c_str() + at + mark.size(), nullptr, 10) + static_cast<std::size_t>(graph.sums_bytes());
}

class CudnnAttention final : public AttentionGraphs {
 public:
  explicit CudnnAttention(Target target) : target_(std::move(target)) {}
  CudnnAttention(const CudnnAttention&) = delete;
  CudnnAttention& operator=(const CudnnAttention&) = delete;
  ~CudnnAttention() override {
    made_.clear();
    if (target_.handle != nullptr) fe::detail::destroy_handle(target_.handle);
  }

  [[nodiscard]] std::string name() const override {
    const std::size_t version = fe::detail::get_backend_version();
    return fmt::format("cuDNN {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }
  [[nodiscard]] LseLayout backward_lse() const override {
    const int major = target_.capability / 10;
    return major == 8 || major == 12 ? LseLayout::kPadded : LseLayout::kByToken;
  }
  [[nodiscard]] bool deterministic_backward() const override { return target_.capability / 10 == 10; }

  const AttentionGraphAnswer& ask(const AttentionGraph& a) override {
    const auto [entry, is_new] = made_.try_emplace(a);
    if (is_new) entry->second.answer = make(a, fe::DataType_t::BFLOAT16, entry->second.graph);
    return entry->second.answer;
  }

  void run(const AttentionGraph& a, const AttentionGraphTensors& t, std::byte* workspace) override {
    const auto found = made_.find(a);
    if (target_.handle == nullptr || found == made_.end() || !found->second.answer.supported) {
      throw Error("a graph that cannot run", "cuDNN", "this is a fault of the program, please report it");
    }
    const auto untyped = [](const auto* data) { return const_cast<void*>(static_cast<const void*>(data)); };
    std::unordered_map<std::int64_t, void*> places = {{kQ, untyped(t.q)},
                                                      {kK, untyped(t.k)},
                                                      {kV, untyped(t.v)},
                                                      {kOut, t.out},
                                                      {kLse, t.lse},
                                                      {kDout, untyped(t.dout)},
                                                      {kDq, t.dq},
                                                      {kDk, t.dk},
                                                      {kDv, t.dv},
                                                      {kQueryLengths, untyped(t.lengths)},
                                                      {kKeyLengths, untyped(t.lengths)}};
    for (const RaggedOffsets& o : t.offsets) places.emplace(kOffsets + o.stride, untyped(o.offsets));
    check(found->second.graph->execute(target_.handle, places, workspace));
  }

  /// Also for element types that attention does not have: controls.
  AttentionGraphAnswer make(const AttentionGraph& a, fe::DataType_t type, std::unique_ptr<Graph>& graph) {
    AttentionGraphAnswer answer;
    try {
      graph = Description(a, target_.capability, type).take();
      answer.workspace = prepare(*graph, target_);
      answer.supported = true;
    } catch (const std::exception& error) {  // of ours, or of the frontend's
      graph.reset();
      answer.reason = one_line(error.what());
    }
    return answer;
  }

 private:
  struct Made {
    std::unique_ptr<Graph> graph;
    AttentionGraphAnswer answer;
  };

  Target target_;
  std::map<AttentionGraph, Made> made_;
};

/// A field of the flat JSON; 0 where there is none.
int integer_field(const std::string& json, const std::string& name) {
  std::size_t at = json.find('"' + name + '"');
  if (at != std::string::npos) at = json.find(':', at);
  return at == std::string::npos ? 0 : static_cast<int>(std::strtol(json.c_str() + at + 1, nullptr, 10));
}

Target described(const std::string& description) {
  if (!load().empty()) throw Error(load(), "cuDNN");
  Target target;
  target.capability = integer_field(description, "deviceVer") / 10;  // the text has 900 for 9.0
  auto properties = std::make_shared<fe::DeviceProperties>();
  check(properties->deserialize({description.begin(), description.end()}));
  if (target.capability == 0) throw Error("a description of a GPU without deviceVer", "cuDNN");
  target.properties = std::move(properties);
  return target;
}

}  // namespace

CudnnFacts cudnn_facts() {
  CudnnFacts facts;
  facts.built_with = CUDNN_VERSION;
  facts.refusal = load();
  if (fe::cudnn_dlhandle != nullptr) facts.loaded = fe::detail::get_backend_version();
  return facts;
}

std::unique_ptr<AttentionGraphs> open_cudnn_attention(int major, int minor, Stream stream) {
  if (!load().empty()) return nullptr;
  Target target;
  target.capability = 10 * major + minor;
  check(fe::detail::create_handle(&target.handle), "cudnnCreate");
  auto graphs = std::make_unique<CudnnAttention>(target);
  check(fe::detail::set_stream(target.handle, stream), "cudnnSetStream");
  return graphs;
}

std::unique_ptr<AttentionGraphs> describe_cudnn_attention(const std::string& description) {
  return std::make_unique<CudnnAttention>(described(description));
}

std::string failed_cudnn_control(const std::string& description) {
  AttentionGraph a;
  a.heads = a.kv_heads = 8;
  a.head_dim = 128;
  a.scale = 1;
  a.sequences = 8;
  a.max_length = 2048;
  a.max_tokens = 4096;
  a.q_ld = a.k_ld = a.v_ld = a.out_ld = a.dout_ld = 8 * 128;
  a.lse = LseLayout::kByToken;
  CudnnAttention graphs(described(description));
  std::unique_ptr<Graph> unused;
  const AttentionGraphAnswer forward = graphs.make(a, fe::DataType_t::INT8, unused);
  a.pass = AttentionPass::kBackward;
  a.lse = LseLayout::kPadded;  // what every chip takes
  const AttentionGraphAnswer backward = graphs.make(a, fe::DataType_t::FLOAT, unused);
  const auto is_refused = [](const AttentionGraphAnswer& answer) {
    return !answer.supported && answer.reason.find("NOT_SUPPORTED_DATA_TYPE") != std::string::npos;
  };
  if (is_refused(forward) && is_refused(backward)) return {};
  return fmt::format("int8 forward: {}; float32 backward: {}", forward.supported ? "taken" : forward.reason,
                     backward.supported ? "taken" : backward.reason);
}

}  // namespace lomu::cuda
