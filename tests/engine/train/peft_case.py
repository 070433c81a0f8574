"""What PEFT computes with an adapter that lomu exported, written as a case for `lomu verify model`.

    peft_case.py MODEL ADAPTER CASE [MODEL ADAPTER CASE ...]

MODEL is a Hugging Face folder, ADAPTER a PEFT folder. CASE becomes a folder with both and with the logits, losses,
residual streams and adapter gradients of a packed batch, in float32. Exit code 77 where the libraries are missing.
"""

import json
import pathlib
import shutil
import sys

try:
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(f"no PEFT here: {missing}", file=sys.stderr)
    sys.exit(77)

DOCUMENTS = (23, 1, 40)
IGNORED = -100


def documents(vocab):
    """Random ids of each document, and labels of which about a third are not supervised."""
    draw = torch.Generator().manual_seed(5)
    for length in DOCUMENTS:
        ids = torch.randint(0, vocab, (length,), generator=draw)
        ignored = torch.rand(length, generator=draw) < 0.35
        yield ids, torch.where(ignored, IGNORED, ids)


def run(model, batch):
    """Logits, per-token losses and residual streams, one document at a time, laid end to end."""
    streams = []
    blocks = [m for name, m in model.named_modules() if name.endswith(".layers")][0]
    hooks = [
        block.register_forward_hook(lambda _, __, out: streams.append(out[0] if isinstance(out, tuple) else out))
        for block in blocks
    ]
    logits, losses, hidden = [], [], []
    for ids, labels in batch:
        streams.clear()
        out = model(ids[None], use_cache=False).logits[0]
        loss = torch.zeros(len(ids))
        if len(ids) > 1:
            loss[:-1] = torch.nn.functional.cross_entropy(
                out[:-1], labels[1:], ignore_index=IGNORED, reduction="none"
            )
        logits.append(out)
        losses.append(loss)
        hidden.append([stream.reshape(len(ids), -1) for stream in streams])
    for hook in hooks:
        hook.remove()
    return torch.cat(logits), torch.cat(losses), [torch.cat(rows) for rows in zip(*hidden)]


def write_case(model_folder, adapter_folder, case):
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")
    batch = list(documents(base.config.vocab_size))
    with torch.no_grad():
        base_logits, _, _ = run(base, batch)
    model = PeftModel.from_pretrained(base, adapter_folder, is_trainable=True)
    model.eval()  # no dropout
    logits, losses, hidden = run(model, batch)
    supervised = sum(int((labels[1:] != IGNORED).sum()) for _, labels in batch)
    loss = losses.sum() / supervised
    loss.backward()

    starts = [0]
    for ids, _ in batch:
        starts.append(starts[-1] + len(ids))
    tensors = {
        "input_ids": torch.cat([ids for ids, _ in batch]).int(),
        "labels": torch.cat([labels for _, labels in batch]).int(),
        "cu_seqlens": torch.tensor(starts, dtype=torch.int32),
        "base_logits": base_logits,
        "logits": logits,
        "per_token_loss": losses,
        "loss": loss,
    }
    tensors |= {f"hidden.{layer}": stream for layer, stream in enumerate(hidden)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            name = name.replace(".modules_to_save.default.", ".").replace(".default.", ".")
            tensors["grad." + name] = parameter.grad
    # PEFT gives a tied head a copy of its own; for us the two are one weight, whose gradient is the sum.
    if base.config.tie_word_embeddings and "grad.base_model.model.lm_head.weight" in tensors:
        tensors["grad.base_model.model.model.embed_tokens.weight"] += tensors.pop("grad.base_model.model.lm_head.weight")

    case = pathlib.Path(case)
    shutil.copytree(model_folder, case)
    shutil.copytree(adapter_folder, case / "adapter")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, case / "expected.safetensors")
    (case / "expected.json").write_text(json.dumps({"case": case.name, "reference": "PEFT, float32"}))


def main(arguments):
    for at in range(0, len(arguments), 3):
        write_case(*arguments[at : at + 3])


if __name__ == "__main__":
    main(sys.argv[1:])
