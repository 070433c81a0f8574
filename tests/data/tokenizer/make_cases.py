"""Makes the small tokenizers of this folder and their cases with Hugging Face's tokenizers library.

    pip install tokenizers==0.23.3 && python make_cases.py

Each folder holds one pipeline as some family of models uses it (the name says which), over a vocabulary of a few hundred
tokens trained on the words below, and cases.jsonl in the format of models/tokenizer/verify_cases.h.
"""

import json
import pathlib
import random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
WORDS = """the quick brown fox jumps over the lazy dog and then the other dog sleeps again while it's raining; don't we'll
I'm you've they're he'd HELLO World 2024 was 365 days of 24 hours, 1000000 seconds don't count: naïve café déjà vu über
straße Ελληνικά русский текст הטקסט नमस्ते दुनिया こんにちは 世界 漢字 한국어 텍스트 def main(): return x + 1 // comment
if (a[0] == b->c) { printf("%d\\n", n); } https://example.org/path?q=1&r=2 e-mail me@example.org 3.14159 -0.5e10 50% $9.99
""".split()

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = {**GPT2, "use_regex": False}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def added(token_id, content, **flags):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": False, **flags}


def bos_template(name, token_id):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}}}


def corpus(rng):
    return [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(4000)]


def train_byte_level(rng):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.train_from_iterator(corpus(rng), trainer)
    spec = json.loads(tokenizer.to_str())
    spec["decoder"] = GPT2
    return spec


def train_sentencepiece(rng, byte_fallback):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256) if byte_fallback]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(corpus(rng), trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]
    steps = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    spec["decoder"] = {"type": "Sequence", "decoders": steps}
    spec["post_processor"] = bos_template("<s>", 1)
    return spec


def texts(rng, count):
    def one_of(low, high):
        while 0xD800 <= (c := rng.randint(low, high)) < 0xE000:
            pass
        return chr(c)

    pools = [lambda: rng.choice(WORDS), lambda: rng.choice("   \t\n\r\u000b\u0085\u00a0\u180e\u2003\u2028\u3000\u200b"),
             lambda: rng.choice("0123456789½Ⅷ٣²"), lambda: one_of(0, 0x7F), lambda: one_of(0x80, 0x24F), lambda: one_of(0x300, 0x36F),
             lambda: one_of(0x370, 0x7FF), lambda: one_of(0x900, 0x11FF), lambda: one_of(0x2000, 0x30FF), lambda: one_of(0x4E00, 0xD7A3),
             lambda: one_of(0x1F300, 0x1FAFF), lambda: one_of(0x10000, 0x10FFFF),
             lambda: rng.choice(["👨‍👩‍👧‍👦", "👩🏽‍💻", "🏳️‍🌈", "é", "e\u0301", "ﬁ", "İ", "ſ", "K", "'S", "'ſ", "'LL", "I'Ve", "\U0001E5EE"]),
             lambda: rng.choice(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "<s>", "<a>", "<b>", "<w>", "<n>", "he", "É<x>"])]
    fixed = ["", " ", "\n\n\n", "Hello, world!", "<|im_start|>user\nHi<|im_end|>\n", "a" * 300, " " * 70 + "x", "é" * 50]
    for _ in range(count - len(fixed)):
        chosen = rng.sample(pools, rng.randint(1, 5))
        fixed.append("".join(rng.choice(chosen)() for _ in range(rng.randint(1, 25))))
    return fixed


def write(name, spec, rng, count=90):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    with open(folder / "cases.jsonl", "w", encoding="utf-8") as out:
        for i, text in enumerate(texts(rng, count)):
            special = i % 3 == 2
            ids = tokenizer.encode(text, add_special_tokens=special).ids
            case = {"kind": name, "text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
            if special:
                case["add_special_tokens"] = True
            out.write(json.dumps(case) + "\n")


def main():
    rng = random.Random(5)
    base = train_byte_level(rng)
    size = len(base["model"]["vocab"])
    he = base["model"]["vocab"]["he"]

    def variant(name, pre_tokenizer, **changes):
        model = {**base["model"], **changes.pop("model", {})}
        spec = {**base, "pre_tokenizer": pre_tokenizer, **changes, "model": model}
        write(name, spec, rng)

    variant("gpt2", GPT2)
    variant("smollm2", sequence({"type": "Digits", "individual_digits": True}, GPT2))
    variant("qwen2", sequence(split(LLAMA3.replace("{1,3}", "")), BYTES), normalizer={"type": "NFC"})
    variant("llama3", sequence(split(LLAMA3), BYTES), model={"ignore_merges": True, "merges": [" ".join(m) for m in base["model"]["merges"]]},
            post_processor={"type": "Sequence", "processors": [GPT2, bos_template("<|endoftext|>", 0)]})
    variant("gpt4o", sequence(split(GPT4O), BYTES))
    variant("falcon", sequence({"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False},
                               split("[0-9][0-9][0-9]")))
    variant("deepseek3", sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), BYTES))
    variant("prefix-nfd", {**GPT2, "add_prefix_space": True},
            normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}]})
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            steps = sequence(split(r"\s|[aeiou]{2,}", behavior, invert), split("t", behavior, invert, "String"), BYTES)
            spec = {**base, "pre_tokenizer": steps}
            write(f"split-{behavior.lower()}{'-inverted' if invert else ''}", spec, rng, 30)
    flags = [added(size, "<a>"), added(size + 1, "<b>", lstrip=True), added(size + 2, "<w>", rstrip=True, special=True),
             added(size + 3, "<n>", normalized=True, lstrip=True, rstrip=True), added(he, "he", single_word=True),
             added(size + 4, "  "), added(size + 5, "É<x>", normalized=True, special=True), added(size + 6, "fox jumps", normalized=True)]
    for name, normalizer in [("added-tokens", None), ("added-tokens-nfd", {"type": "NFD"})]:
        variant(name, GPT2, added_tokens=base["added_tokens"] + flags, normalizer=normalizer)
    write("llama2", train_sentencepiece(rng, True), rng)
    write("unknown-token", train_sentencepiece(rng, False), rng)
    metaspace = train_sentencepiece(rng, True)
    metaspace["normalizer"] = None
    metaspace["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    write("metaspace", metaspace, rng)


if __name__ == "__main__":
    main()
