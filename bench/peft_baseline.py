#!/usr/bin/env python3
"""Speed of the same training step with PyTorch, transformers and PEFT, to hold beside bench_train_step's.

A step is forward, backward and AdamW over --micro-batches rows of --tokens random token ids, all supervised, with LoRA
at all seven linear sites of every block. By default all rows go through the model at once, which is how it is fastest;
--accumulate takes them one by one, as Lomu does, which needs less memory.

A config.json in place of a model gives its shapes random weights, as in bench_train_step. --device cuda runs on the
first GPU, with its peak memory as PyTorch reserves it.

Needs torch, transformers and peft, and gguf to read a GGUF file. Works offline. Prints one JSON object with the same
names for the same things as bench_train_step; exit code 3 when a package is missing.
"""

import argparse
import json
import os
import statistics
import sys
import time

SITES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, GGUF file or config.json")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32)
    parser.add_argument("--tokens", type=int, default=512, help="of a row")
    parser.add_argument("--micro-batches", type=int, default=4, help="rows of a step")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16", help="of the frozen weights")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: what PyTorch takes")
    parser.add_argument("--accumulate", action="store_true", help="one row after the other")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--json", default="-", help="file for the results; - for stdout")
    return parser.parse_args()


def load_model(args, torch, transformers):
    """The model with dense weights of the wanted type, whatever the file holds."""
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]
    options = {"dtype": dtype, "attn_implementation": "sdpa"}
    if args.model.endswith(".json"):
        with open(args.model, encoding="utf-8") as file:
            config = transformers.AutoConfig.for_model(**json.load(file))
        with torch.device(args.device):
            return transformers.AutoModelForCausalLM.from_config(config, **options)
    options["local_files_only"] = True
    folder = args.model
    if not os.path.isdir(folder):
        folder, options["gguf_file"] = os.path.split(os.path.abspath(args.model))
        # Newer versions would otherwise keep the weights packed where they find kernels for it, and unpack them in every
        # product.
        if hasattr(transformers, "GgufConfig"):
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    for name, module in model.named_modules():
        if name.endswith(tuple(SITES)) and (type(module) is not torch.nn.Linear or module.weight.dtype != dtype):
            raise TypeError(f"{name} is no plain {args.dtype} linear layer: the measurement would mean something else")
    return model


def peak_resident_bytes():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def name_of_device(args, torch):
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu with {torch.get_num_threads()} threads"


def spread(values):
    """Median and the tenths at both ends, between the two nearest measurements."""
    ordered = sorted(values)

    def at(share):
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

    return {"median": at(0.5), "p10": at(0.1), "p90": at(0.9)}


def measure(args, torch, transformers, peft):
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    config = peft.LoraConfig(r=args.rank, lora_alpha=args.alpha, task_type="CAUSAL_LM", target_modules=SITES)
    model = peft.get_peft_model(load_model(args, torch, transformers).to(args.device), config)
    model.train()
    model.config.use_cache = False
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    runner = torch.compile(model) if args.compile else model
    ids = torch.randint(0, model.config.vocab_size, (args.micro_batches, args.tokens)).to(args.device)
    parts = ids.split(1) if args.accumulate else [ids]

    seconds, optimizer_seconds, losses = [], [], []
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        total = 0.0
        for part in parts:
            loss = runner(input_ids=part, labels=part).loss / len(parts)
            loss.backward()
            total += loss.item()
        before_optimizer = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if args.device == "cuda":
            torch.cuda.synchronize()
        end = time.perf_counter()
        print(f"step {step + 1}: {end - start:.3f} s, loss {total:.4f}", file=sys.stderr, flush=True)
        if step >= args.warmup:
            seconds.append(end - start)
            optimizer_seconds.append(end - before_optimizer)
            losses.append(total)

    tokens = args.micro_batches * args.tokens
    return {
        "engine": "peft",
        "model": os.path.basename(os.path.abspath(args.model)),
        "compute": f"{name_of_device(args, torch)}, {args.dtype}",
        "mode": ("compiled" if args.compile else "eager") + (", accumulated" if args.accumulate else ", one batch"),
        "ranks": 1,
        "threads_per_rank": torch.get_num_threads(),
        "adapter_rank": args.rank,
        "adapter_dtype": str(parameters[0].dtype).removeprefix("torch."),
        "tokens": args.tokens,
        "micro_batches": args.micro_batches,
        "steps": args.steps,
        "tokens_per_second": spread([tokens / s for s in seconds]),
        "step_seconds": spread(seconds),
        "peak_resident_bytes": peak_resident_bytes(),
        "peak_device_bytes": torch.cuda.max_memory_reserved() if args.device == "cuda" else 0,
        "loss": [losses[0], losses[-1]],
        "optimizer": {"name": "adamw", "ms": 1e3 * statistics.fmean(optimizer_seconds)},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }


def main():
    args = parse_arguments()
    try:
        import peft
        import torch
        import transformers
    except ImportError as error:
        print(f"peft_baseline.py: {error}; it needs torch, transformers and peft", file=sys.stderr)
        return 3
    text = json.dumps(measure(args, torch, transformers, peft), indent=2) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
    else:
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
