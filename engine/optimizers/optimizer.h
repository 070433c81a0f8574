// One step of everything that is trained: pairs of adapter factors, and dense matrices. The interface the training loop
// sees, its options and its factory. An optimizer owns no memory and knows no ranks: the engine hands it the pairs this
// rank owns, with their gradients and state, and gets back numbers about the step. Storage is PEFT's: lora_B is the
// left factor P, lora_A is Q transposed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/optimizers/pair_figures.h"

namespace lomu {

/// What is trained, apart from its numbers: enough to say which state it has.
struct ParameterShape {
  std::string_view name;  ///< of the site or tensor: "model.layers.0.self_attn.q_proj"
  std::int64_t m = 0;     ///< rows of W (out)
  std::int64_t n = 0;     ///< columns of W (in)
  std::int64_t r = 0;     ///< rank of the pair; n for a dense matrix
  bool dense = false;     ///< a matrix [m, n] by itself instead of a pair of factors; a vector has m = 1
};

/// Which shape an array of state has: that of the left factor [m, r] (of a dense matrix: the matrix), that of the right
/// factor [r, n] (of a dense matrix: nothing), one matrix [r, r], or a single number.
enum class Extent : std::uint8_t { kLeft, kRight, kRankByRank, kScalar };

/// One array of optimizer state.
struct StateSlot {
  std::string_view name;  ///< the name in a checkpoint, for example "momentum_left"
  Extent extent = Extent::kLeft;
};

/// Rows and columns of an array of state; no rows where the parameter has none of it.
std::array<std::int64_t, 2> dimensions(const StateSlot& slot, const ParameterShape& shape);

/// The two factors of one site, W = W0 + scale P Q^T, and all that a step of them needs; or a dense matrix, which is
/// a left factor alone: left = W, right = grad_right = nullptr, r = n, scale = 1. All arrays are float32, row-major.
struct PairView {
  std::string_view name;              ///< of the site, for messages and parameter groups
  std::int64_t m = 0;                 ///< rows of W (out)
  std::int64_t n = 0;                 ///< columns of W (in)
  std::int64_t r = 0;                 ///< rank of the pair; n for a dense matrix
  double scale = 1.0;                 ///< alpha / r, or whatever multiplies the product
  float* left = nullptr;              ///< P: [m, r], PEFT's lora_B
  float* right = nullptr;             ///< Q^T: [r, n], PEFT's lora_A
  const float* grad_left = nullptr;   ///< df/dP: [m, r]
  const float* grad_right = nullptr;  ///< df/dQ^T: [r, n]
  std::span<float> state;             ///< Optimizer::state_size floats, all zero before the first step
  bool left_started_zero = false;     ///< a property of the run, kept over a resume: P was zero at step 1
  bool right_started_zero = false;    ///< likewise Q

  [[nodiscard]] bool dense() const { return right == nullptr && grad_right == nullptr; }
  [[nodiscard]] ParameterShape shape() const { return {name, m, n, r, dense()}; }
  /// Entries of the left factor, or of the dense matrix; of the right factor, none for a dense matrix.
  [[nodiscard]] std::size_t left_size() const { return static_cast<std::size_t>(m * r); }
  [[nodiscard]] std::size_t right_size() const { return dense() ? 0 : static_cast<std::size_t>(n * r); }
};

/// What the trainer knows about a step.
struct StepInfo {
  std::int64_t step = 1;  ///< number of this step; the first is 1
  double lr = 0.0;        ///< learning rate of this step, from the schedule
  /// Norm of the gradient over all pairs of all ranks; needed when max_grad_norm > 0. From grad_norm_squared.
  std::optional<double> grad_norm = std::nullopt;
  bool telemetry = false;  ///< fill PairReport::figures with what describe_step() says, where the optimizer can
};

/// What a step did to one pair. Sums of squares, so that a world of ranks can add them in pair order.
struct PairReport {
  double grad_norm_squared = 0.0;    ///< ||dP||_F^2 + ||dQ||_F^2 of the gradients, before clipping
  double update_norm_squared = 0.0;  ///< of the steps of both factors, without weight decay
  double relative_step_left = 0.0;   ///< ||step of P||_F / ||P||_F; 0 where P = 0
  double relative_step_right = 0.0;  ///< likewise Q
  int cholesky_raises = 0;           ///< how often a nearly singular metric had to be shifted
  PairFigures figures;               ///< of the step, when they were asked for
};

/// One entry per pair, in the order the pairs were given.
struct StepReport {
  std::vector<PairReport> pairs;
};

/// Squared Frobenius norm of each pair's gradients, in double and in a fixed order. Results: one per pair.
/// A NaN or infinity in a gradient shows as a non-finite result of its pair.
std::vector<double> grad_norm_squared(std::span<const PairView> pairs);

/// Steps pairs of factors, dense matrices, or both. Implementations are deterministic: the same input gives the same
/// bits for any number of threads and whatever other pairs are in the call.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// The arrays of state a parameter has, in the order they lie in PairView::state.
  [[nodiscard]] virtual std::span<const StateSlot> state_slots(const ParameterShape& shape) const = 0;

  /// Refuses what is wrong about the choice of parameters as a whole: `all` are those of every rank. Call it once,
  /// where check() sees only the pairs of this rank.
  virtual void check_all(std::span<const ParameterShape> /*all*/) const {}

  /// Refuses, by name, a pair this optimizer cannot train (UsageError). Call it once before step 1; step() calls it
  /// too.
  virtual void check(std::span<const PairView> pairs) const = 0;

  /// Replaces factors and state of every pair by those after one step; `report` gets one entry per pair.
  /// Throws NumericError naming the pair and step when a gradient or factor is not finite; that pair is then unchanged,
  /// others may have moved, so a run must not go on from there.
  virtual void step(std::span<const PairView> pairs, const StepInfo& info, StepReport& report) = 0;

  /// Floats of state of one parameter.
  [[nodiscard]] std::int64_t state_size(const ParameterShape& shape) const;
};

/// The part of a pair's state that is slot number `index` of `slots`. Works on views of const and mutable floats.
std::span<float> state_slot(const PairView& pair, std::span<const StateSlot> slots, std::size_t index);

enum class OptimizerKind : std::uint8_t {
  kLoraMuon,
  kAdamW,
  kMuonFactors,
  kSpectron,
  kLoraRite,
  kLoraRiteCore,
  kScaledAdamW,
  kLoraPlus,
  kMuon,
};
/// How a matrix sign is computed. kNewtonSchulz: LoRA-Muon's paper's recursions, Muon's quintic elsewhere;
/// kPolarExpress: not for LoRA-Muon.
enum class Orthogonalizer : std::uint8_t { kExact, kNewtonSchulz, kPolarExpress };
/// What multiplies lr to give the spectral size of a step: 1; 1 / sqrt(r), which gives it the same Frobenius norm at
/// all ranks; sqrt(m / n); 0.2 sqrt(m n / r), which matches AdamW's RMS; or sqrt(m n / r) / hidden_size.
enum class StepMultiplier : std::uint8_t { kNone, kFrobenius, kSqrtMOverN, kRms, kRmsOverWidth };

/// What LoRA-Muon makes of the singular values s of a whitened momentum: 1 (Muon), s / sqrt(s^2 + tau^2 s_max^2), or
/// (s / s_max)^p. Large ones stay near 1, small ones, mostly noise at high rank, move less.
enum class SpectralFilter : std::uint8_t { kSign, kDamped, kPower };

/// What multiplies lr for a matrix stepped by Muon, by its own rows and columns: sqrt(max(1, rows / columns)),
/// 0.2 sqrt(max(rows, columns)), or 1.
enum class MuonScaling : std::uint8_t { kOriginal, kRms, kNone };

/// How singular values of a product are held below a bound: cut there, or bent towards it from half of it on.
enum class SpectralClip : std::uint8_t { kHard, kSoft };

struct OptimizerGroup;

struct OptimizerOptions {
  OptimizerKind name = OptimizerKind::kLoraMuon;
  double lr = 0.02;            ///< peak; the step's own comes in StepInfo
  double weight_decay = 0.0;   ///< decoupled: the product (LoRA-Muon) or factors (AdamW) shrink by 1 - lr weight_decay
  double max_grad_norm = 0.0;  ///< gradients are scaled down to this global norm; 0: off

  // LoRA-Muon; momentum, nesterov and orthogonalizer also the other kinds of Muon, damping also LoRA-RITE
  double momentum = 0.9;
  bool nesterov = false;
  std::optional<double> damping =
      0.1;  ///< rho: bound on the relative step where the partner started at zero; empty: off
  Orthogonalizer orthogonalizer = Orthogonalizer::kExact;
  StepMultiplier multiplier = StepMultiplier::kNone;
  std::int64_t hidden_size = 0;                   ///< of the model; for kRmsOverWidth
  std::int64_t balance_every = 100;               ///< steps between gauge balances; 0: never
  SpectralFilter filter = SpectralFilter::kSign;  ///< others need kExact
  double filter_tau = 0.1;
  double filter_power = 0.5;

  std::optional<double> spectral_bound;  ///< on ||s P Q^T||_2 after every step; empty: none (spectral_bound.h)
  SpectralClip spectral_clip = SpectralClip::kHard;

  MuonScaling scaling = MuonScaling::kOriginal;  ///< muon and muon_factors

  // AdamW and its kin, and LoRA-RITE
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double lr_ratio = 16.0;  ///< lora_plus: learning rate of the left factor over that of the right one
  double delta = 1e-6;     ///< scaled_adamw: added to the Grams it inverts

  std::vector<OptimizerGroup> groups;  ///< parameters that are stepped otherwise (grouped.h)
};

/// The parameters that any of the patterns means (parameter_names.h), and how they are stepped. `options` has no
/// groups; its max_grad_norm is that of the job.
struct OptimizerGroup {
  std::vector<std::string> match;
  OptimizerOptions options;
};

/// Checks the options (UsageError names the option) and makes the optimizer.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options);

/// The factor that brings a gradient of global norm `grad_norm` down to `max_grad_norm`: min(1, max / (norm + 1e-6)),
/// as PyTorch's clip_grad_norm_; 1 when clipping is off. Throws Error when clipping is on and the norm is missing or
/// not finite.
double clip_factor(double max_grad_norm, const StepInfo& info);

/// Refuses (UsageError) a learning rate that is negative or not finite, or with which weight decay would shrink by 1 or
/// more.
void check_learning_rate(const StepInfo& info, double weight_decay);

/// What every optimizer asks of its pairs: positive shapes, no missing array, state of the right size, a finite
/// positive scale; of a dense matrix, r = n and scale = 1. UsageError naming the pair.
void check_pairs(std::span<const PairView> pairs, const Optimizer& optimizer);

/// ||step||_F / ||factor||_F from squared norms; 0 for a zero factor.
double relative_step(double step_norm_squared, double factor_norm_squared);

/// Refuses (UsageError) a dense matrix, or a vector, by name: for optimizers of pairs.
void refuse_dense(std::span<const PairView> pairs, std::string_view optimizer);

}  // namespace lomu
