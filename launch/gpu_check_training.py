"""The same short training on two devices, compared: loss by loss, and the adapters that came out."""

import array
import json
import math
import shutil
import struct

JOB = """\
model: {path: model}
adapter: {rank: 4}
data: {train: train.jsonl, cache_dir: cache}
training: {steps: 20, micro_batch_tokens: 128, micro_batches: 4}
output: {dir: out, overwrite: true}
"""
WORDS = ["red", "blue", "tin", "oak", "cup", "jar", "box", "pen"]


def prepare(folder, cases, model="llama-tied"):
    """A folder in which `lomu train job.yaml` trains a tiny random model on two words to be said in reverse."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    for source in (cases / "models" / model, cases / "chat-tokenizer"):
        for file in source.iterdir():
            if file.is_file() and not file.name.startswith("expected."):
                shutil.copy(file, folder / "model")
    with open(folder / "train.jsonl", "w", encoding="utf-8") as lines:
        for i in range(60):
            a, b = WORDS[5 * i % 8], WORDS[i * i % 7]
            turns = [{"role": "user", "content": f"{a} {b}"}, {"role": "assistant", "content": f"{b} {a}"}]
            lines.write(json.dumps({"messages": turns}) + "\n")
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")


def losses(run):
    with open(run / "metrics.jsonl", encoding="utf-8") as lines:
        return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def weights(run):
    return run / "adapter" / "adapter_model.safetensors"


def tensors(run):
    """Of the adapter, all f32: {name: numbers}."""
    data = weights(run).read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:begin])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, not F32")
        first, last = entry["data_offsets"]
        found[name] = array.array("f", data[begin + first:begin + last])
    return found


def same_adapter(base, other):
    """Whether the weights of two runs are the same file, byte for byte."""
    return all(part.is_file() for part in (weights(base), weights(other))) and \
        weights(base).read_bytes() == weights(other).read_bytes()


def differences(base, other):
    """{"loss": largest relative difference of a step, "adapter": relative in norm over all tensors, "worst", "tensor"}.
    Infinite where something is missing or not finite."""
    a, b = losses(base), losses(other)
    whole = len(a) == len(b) > 0 and all(map(math.isfinite, a + b))
    loss = max(abs(x - y) / abs(x) for x, y in zip(a, b)) if whole else math.inf
    mine, others = tensors(base), tensors(other)
    if mine.keys() != others.keys():
        return {"loss": loss, "adapter": math.inf, "worst": math.inf, "tensor": "names differ"}
    squares, errors, worst, tensor = 0.0, 0.0, 0.0, ""
    for name, values in mine.items():
        square = math.fsum(x * x for x in values)
        error = math.fsum((x - y) ** 2 for x, y in zip(values, others[name]))
        relative = math.sqrt(error / square) if square > 0 else (math.inf if error > 0 else 0.0)
        if not relative <= worst:  # also NaN
            worst, tensor = relative, name
        squares, errors = squares + square, errors + error
    adapter = math.sqrt(errors / squares) if squares > 0 else math.inf
    return {"loss": loss, "adapter": adapter if math.isfinite(adapter) else math.inf, "worst": worst, "tensor": tensor}
