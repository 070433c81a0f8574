// A study small enough for a test: a scratch model on a text of its own.
#pragma once

#include <string>

namespace lomu {

inline const std::string kStudyText = R"(model: {start: scratch, scratch: {layers: 1, hidden: 16, heads: 2, base: none}}
adapter: {rank: 2, alpha: 1}
data: {train: text.txt, validation_split: 0.2, max_length: 32, cache_dir: cache}
training: {steps: 4, micro_batch_tokens: 128, micro_batches: 1}
optimizer: {name: adamw, lr: 0.01}
runtime: {dtype: f32}
output: {dir: out}
study:
  claim: small models learn
  x: optimizer.lr
  lines: adapter.rank
  repeat: training.seed
  axes:
    adapter.rank: [1, 2]
    optimizer.lr: [0.001, 0.01]
    training.seed: [0, 1]
  variants:
    plain: {optimizer.name: adamw}
    decayed: {optimizer.name: adamw, optimizer.weight_decay: 0.1, optimizer.lr: [0.02]}
  quick:
    training.steps: 2
    adapter.rank: [2]
    variants: [plain]
)";

inline std::string study_words() {
  std::string text;
  for (int i = 0; i < 200; ++i) text += i % 3 == 0 ? "the cat sat on the mat. " : "a dog ran up the hill. ";
  return text;
}

}  // namespace lomu
