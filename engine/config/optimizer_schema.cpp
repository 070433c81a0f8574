#include "engine/config/optimizer_schema.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lomu::config {
namespace {

constexpr const char* kName = "optimizer.name";
constexpr const char* kMultiplier = "optimizer.multiplier";
constexpr double kIntMax = 2147483647;

/// What the defaults of an optimizer are where they differ from one to the next.
struct Standard {
  double lr = 0.01;
  double momentum = 0.9;
  bool nesterov = false;
  Orthogonalizer orthogonalizer = Orthogonalizer::kExact;
  std::optional<double> max_grad_norm = {};
};

/// Of lora_muon and lora_rite_core, found by finetuning (docs/findings.md).
double rate_for(StepMultiplier multiplier) {
  switch (multiplier) {
    case StepMultiplier::kNone:
    case StepMultiplier::kSqrtMOverN: return 0.01;
    case StepMultiplier::kFrobenius:
    case StepMultiplier::kRmsOverWidth: return 0.05;
    case StepMultiplier::kRms: return 4e-4;
  }
  return 0.05;
}

// A rate found for one optimizer means nothing to another: for lora_muon, lora_rite_core and spectron it is the
// size of a step of W, for muon and muon_factors that of a step of the matrix itself, for the others a bound
// on each entry. Momentum and Nesterov's look ahead are those of the optimizer's authors. LoRA-Muon's steps do not get
// smaller with the gradient, so its clipping is there to give all batches about the same say in the momentum
// (docs/lora_muon.md).
Standard standard(OptimizerName name, StepMultiplier multiplier) {
  switch (name) {
    case OptimizerName::kLoraMuon: return {.lr = rate_for(multiplier), .max_grad_norm = 0.1};
    case OptimizerName::kAdamW: return {.lr = 2e-4, .max_grad_norm = 1.0};
    case OptimizerName::kMuonFactors: return {.lr = 5e-4, .momentum = 0.95, .nesterov = true};
    case OptimizerName::kSpectron: return {.lr = 0.01, .momentum = 0.95};
    case OptimizerName::kLoraRite: return {.lr = 2e-4, .max_grad_norm = 1.0};
    case OptimizerName::kLoraRiteCore: return {.lr = rate_for(multiplier), .max_grad_norm = 0.1};
    case OptimizerName::kScaledAdamW: return {.lr = 2e-4, .max_grad_norm = 1.0};
    case OptimizerName::kLoraPlus: return {.lr = 5e-5, .max_grad_norm = 1.0};
    case OptimizerName::kMuon:
      return {.lr = 0.02, .momentum = 0.95, .nesterov = true, .orthogonalizer = Orthogonalizer::kNewtonSchulz};
  }
  return {};
}
Standard standard(const TrainConfig& config) {
  return standard(config.optimizer.name, config.optimizer.multiplier);
}

using Names = std::vector<std::string>;
Names with_momentum() {
  return {"lora_muon", "lora_rite_core", "muon", "muon_factors", "spectron"};
}
Names with_metric() {
  return {"lora_muon", "lora_rite", "lora_rite_core"};
}
Names with_sign() {
  return {"lora_muon", "muon", "muon_factors", "spectron"};
}
Names with_moments() {
  return {"adamw", "lora_plus", "scaled_adamw", "lora_rite"};
}

template <class SectionOf>
void add_general(SectionOf& optimizer) {
  optimizer.key("name", &OptimizerConfig::name,
                {{"lora_muon", OptimizerName::kLoraMuon, "spectral steepest descent on the product of the factors"},
                 {"adamw", OptimizerName::kAdamW, "AdamW on each factor, or on dense matrices and vectors"},
                 {"muon", OptimizerName::kMuon, "Muon, for dense matrices only"},
                 {"muon_factors", OptimizerName::kMuonFactors, "Muon on each factor by itself"},
                 {"spectron", OptimizerName::kSpectron, "signs of both factors, one step size that bounds the product"},
                 {"lora_rite", OptimizerName::kLoraRite, "second moments in the coordinates of the partner"},
                 {"lora_rite_core", OptimizerName::kLoraRiteCore, "without second moments: lora_muon by another way"},
                 {"scaled_adamw", OptimizerName::kScaledAdamW, "AdamW on gradients preconditioned by the partner"},
                 {"lora_plus", OptimizerName::kLoraPlus, "AdamW with a larger rate for the left factor"}},
                "the rule");
  optimizer
      .key("lr", &OptimizerConfig::lr,
           "highest learning rate; lora_muon: times the factor of `multiplier`, the spectral norm of a step of s P Q^T")
      .above(0, 1e6)
      .chosen_for({kName, kMultiplier})
      .default_from(
          "0.05 for lora_muon and lora_rite_core (by multiplier: 0.01 for none and sqrt_m_over_n, 0.0004 for rms), "
          "0.01 "
          "for spectron, 0.0002 for adamw, scaled_adamw and lora_rite, 5e-05 for lora_plus, 0.02 for muon, 0.0005 for "
          "muon_factors",
          [](const TrainConfig& config) -> Value { return standard(config).lr; });
  optimizer
      .key("weight_decay", &OptimizerConfig::weight_decay,
           "decay rate lambda: lora_muon and lora_rite_core shrink the product, others each factor, by lambda x lr a "
           "step")
      .range(0, 1e6);
}

template <class SectionOf>
void add_spectral(SectionOf& optimizer) {
  optimizer.key("momentum", &OptimizerConfig::momentum, "decay of the gradient's running mean")
      .from_below(0, 1)
      .when(kName, with_momentum())
      .default_from("0.95 for muon, muon_factors and spectron, else 0.9",
                    [](const TrainConfig& config) -> Value { return standard(config).momentum; });
  optimizer.key("nesterov", &OptimizerConfig::nesterov, "look one step ahead with the momentum")
      .when(kName, with_momentum())
      .default_from("true for muon and muon_factors, else false",
                    [](const TrainConfig& config) -> Value { return standard(config).nesterov; });
  optimizer
      .key("damping", &OptimizerConfig::damping,
           "largest relative step rho of a factor whose partner starts at zero; off needs adapter.init: balanced")
      .above(0, 1e6)
      .or_off()
      .when(kName, with_metric());
  optimizer
      .key("orthogonalizer", &OptimizerConfig::orthogonalizer,
           {{"exact", Orthogonalizer::kExact, "eigendecomposition in float64 of the Gram"},
            {"newton_schulz", Orthogonalizer::kNewtonSchulz,
             "lora_muon: its paper's recursions, less accurate; muon: the published quintic, five steps"},
            {"polar_express", Orthogonalizer::kPolarExpress, "five steps of arXiv 2505.16932; not for lora_muon"}},
           "how the matrix sign is computed")
      .when(kName, with_sign())
      .default_from("newton_schulz for muon, else exact", [](const TrainConfig& config) -> Value {
        const bool exact = standard(config).orthogonalizer == Orthogonalizer::kExact;
        return std::string(exact ? "exact" : "newton_schulz");
      });
  optimizer
      .key("filter", &OptimizerConfig::filter,
           {{"sign", SpectralFilter::kSign, "1: every direction moves alike"},
            {"damped", SpectralFilter::kDamped, "s / sqrt(s^2 + tau^2 s_max^2): small ones move less"},
            {"power", SpectralFilter::kPower, "(s / s_max)^p"}},
           "what becomes of a singular value s of the whitened momentum; needs orthogonalizer: exact")
      .when(kName, "lora_muon");
  optimizer.key("filter_tau", &OptimizerConfig::filter_tau, "tau of filter: damped")
      .range(0, 1e3)
      .when("optimizer.filter", "damped");
  optimizer.key("filter_power", &OptimizerConfig::filter_power, "p of filter: power; 0 is sign")
      .range(0, 100)
      .when("optimizer.filter", "power");
  optimizer
      .key("multiplier", &OptimizerConfig::multiplier,
           {{"none", StepMultiplier::kNone, "1: lr is the spectral norm of a step"},
            {"frobenius", StepMultiplier::kFrobenius, "1 / sqrt(rank): lr is the Frobenius norm of a step"},
            {"sqrt_m_over_n", StepMultiplier::kSqrtMOverN, "sqrt(out / in)"},
            {"rms", StepMultiplier::kRms, "0.2 sqrt(out x in / rank): AdamW's step size in RMS"},
            {"rms_over_width", StepMultiplier::kRmsOverWidth,
             "sqrt(out x in / rank) / hidden size: all entries move alike, and lr suits all widths"}},
           "factor on lr by rank and shape of the layer")
      .when(kName, Names{"lora_muon", "lora_rite_core"});
  optimizer
      .key("scaling", &OptimizerConfig::scaling,
           {{"original", MuonScaling::kOriginal, "sqrt(max(1, rows / columns))"},
            {"rms", MuonScaling::kRms, "0.2 sqrt(max(rows, columns)): AdamW's step size in RMS"},
            {"none", MuonScaling::kNone, "1"}},
           "factor on lr by the shape of the matrix that is stepped")
      .when(kName, Names{"muon", "muon_factors"});
  optimizer
      .key("balance_every", &OptimizerConfig::balance_every,
           "distance of evening out the norms of a pair's factors, which changes nothing else; 0: never")
      .unit("steps")
      .range(0, kIntMax)
      .when(kName, "lora_muon");
}

template <class SectionOf>
void add_moments(SectionOf& optimizer) {
  optimizer.key("beta1", &OptimizerConfig::beta1, "decay of the first moment")
      .from_below(0, 1)
      .when(kName, with_moments());
  optimizer.key("beta2", &OptimizerConfig::beta2, "decay of the second moment")
      .from_below(0, 1)
      .when(kName, with_moments());
  optimizer.key("eps", &OptimizerConfig::eps, "added to the root of the second moment")
      .above(0, 1)
      .when(kName, with_moments());
  optimizer.key("lr_ratio", &OptimizerConfig::lr_ratio, "learning rate of the left factor (lora_B) over lr")
      .above(0, 1e6)
      .when(kName, "lora_plus");
  optimizer.key("delta", &OptimizerConfig::delta, "added to the Grams that precondition")
      .above(0, 1e6)
      .when(kName, "scaled_adamw");
}

constexpr const char* kGroups = "optimizer.groups";

/// The group that a job stands for while an item is read; asked for a default, an empty one.
struct FirstGroup {
  const OptimizerGroup& operator()(const TrainConfig& config) const {
    static const OptimizerGroup none;
    return config.optimizer_groups.empty() ? none : config.optimizer_groups.front();
  }
  OptimizerGroup& operator()(TrainConfig& config) const { return config.optimizer_groups.front(); }
};

void add_groups(Table& table) {
  Table own;
  auto group = own.section(kGroups, "parameters that are stepped otherwise", FirstGroup{});
  group
      .key("match", &OptimizerGroup::match,
           "which: q, k, v, o, gate, up, down, embedding, head, norm, bias, or full names with *")
      .required();
  group.key("lr_multiplier", &OptimizerGroup::lr_multiplier, "lr of the group over optimizer.lr")
      .above(0, 1e6)
      .optional()
      .excludes("optimizer.groups.lr");

  ItemList list;
  list.path = kGroups;
  list.meaning = "parameters that are stepped otherwise; each goes to the first group that means it";
  list.like = "optimizer";
  list.but = "max_grad_norm";
  list.kind = "optimizer.groups.name";
  list.size = [](const TrainConfig& config) { return config.optimizer_groups.size(); };
  list.blank = [](const TrainConfig& config) {
    TrainConfig item = config;
    item.optimizer_groups.assign(1, {});
    return item;
  };
  list.item = [](const TrainConfig& config, std::size_t i) {
    TrainConfig item = config;
    item.optimizer_groups = {config.optimizer_groups.at(i)};
    item.optimizer = config.optimizer_groups[i].optimizer;
    return item;
  };
  list.append = [](TrainConfig& config, const TrainConfig& item) {
    OptimizerGroup complete = item.optimizer_groups.front();
    complete.optimizer = item.optimizer;
    if (const auto multiplier = std::exchange(complete.lr_multiplier, {})) {
      complete.optimizer.lr = *multiplier * config.optimizer.lr;
    }
    config.optimizer_groups.push_back(std::move(complete));
  };
  table.list(std::move(list), std::move(own));
}

}  // namespace

void add_optimizer(Table& table) {
  auto optimizer = table.section(
      "optimizer", "how the factors move", [](auto& config) -> auto& { return config.optimizer; });
  add_general(optimizer);
  add_spectral(optimizer);
  add_moments(optimizer);
  optimizer
      .key("max_grad_norm", &OptimizerConfig::max_grad_norm, "gradients are scaled down to this norm over all factors")
      .above(0)
      .or_off()
      .default_from(
          "0.1 for lora_muon and lora_rite_core, 1 for adamw, lora_plus, scaled_adamw and lora_rite, else off",
          [](const TrainConfig& config) {
            const std::optional<double> norm = standard(config).max_grad_norm;
            return norm ? Value{*norm} : Value{};
          });
  add_groups(table);
}

}  // namespace lomu::config
