#!/usr/bin/env python3
"""Puts the runs of compare_train_step together: comparison_report.py FOLDER TARGET writes TARGET.json and TARGET.md.

FOLDER holds machine.json (what the script knows: machine, commit, commands) and lomu-N.json and peft-N.json, one a
round. Standard library only.
"""

import json
import os
import statistics
import sys
from pathlib import Path


def read_runs(folder, engine):
    files = sorted(folder.glob(f"{engine}-*.json"), key=lambda file: int(file.stem.split("-")[1]))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def summary(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summarise(runs):
    """A round is one number, the median of its steps; the rounds have a median and a range."""
    return {
        "compute": runs[0]["compute"],
        "ranks": runs[0]["ranks"],
        "optimizer": runs[0]["optimizer"]["name"],
        "tokens_per_second": summary([run["tokens_per_second"]["median"] for run in runs]),
        "step_seconds": summary([run["step_seconds"]["median"] for run in runs]),
        "p10_tokens_per_second": min(run["tokens_per_second"]["p10"] for run in runs),
        "p90_tokens_per_second": max(run["tokens_per_second"]["p90"] for run in runs),
        "peak_resident_bytes": max(run["peak_resident_bytes"] for run in runs),
    }


def engine_row(name, s):
    speed = s["tokens_per_second"]
    return (
        f"| {name} | {s['ranks']} x {s['compute']} | {s['optimizer']} | {speed['median']:.0f} "
        f"| {speed['least']:.0f} - {speed['most']:.0f} "
        f"| {s['p10_tokens_per_second']:.0f} - {s['p90_tokens_per_second']:.0f} "
        f"| {s['step_seconds']['median']:.3f} | {s['peak_resident_bytes'] / 1e9:.2f} |"
    )


def operation_rows(run):
    yield "| operation | calls | ms a step | share | GFLOP/s | of the ceiling |"
    yield "|---|---|---|---|---|---|"
    for o in run["operations"]:
        rate = f"{o['gflop_per_second']:.0f} | {100 * o['share_of_ceiling']:.0f} %" if "gflop" in o else "|"
        yield f"| {o['name'].replace('|', ', ')} | {o['calls']} | {o['ms']:.2f} | {100 * o['share']:.1f} % | {rate} |"


def as_markdown(result):
    machine, lomu = result["machine"], result["lomu"]
    run = result["runs"]["lomu"][-1]
    limit, optimizer = run["limit"], run["optimizer"]
    lines = [
        f"# {machine['name']}",
        "",
        f"{run['model']}, LoRA rank {run['adapter_rank']} at all sites, {run['micro_batches']} x {run['tokens']} tokens "
        f"a step, {run['steps']} steps a round, {len(result['runs']['lomu'])} rounds in turn.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"load before: {machine['load']}. {machine['date']}, commit {machine['commit']}.",
        "",
        "| | where | optimizer | tokens/s | rounds | p10 - p90 of steps | s a step | peak GB |",
        "|---|---|---|---|---|---|---|---|",
        engine_row("Lomu", lomu),
    ]
    if "peft" in result:
        lines.append(engine_row(f"PEFT ({result['runs']['peft'][0]['mode']})", result["peft"]))
        ratio = result["ratio"]
        versions = ", ".join(f"{name} {version}" for name, version in result["runs"]["peft"][0]["versions"].items())
        lines += [
            "",
            f"Lomu is {ratio['median']:.2f} times as fast ({ratio['least']:.2f} - {ratio['most']:.2f} by round). "
            f"{versions}; PEFT keeps its factors in {result['runs']['peft'][0]['adapter_dtype']}.",
        ]
    else:
        lines += ["", f"PEFT was not measured: {machine['no_peft']}."]
    lines += [
        "",
        f"Limit: {limit['tokens_per_second']:.0f} tokens/s, were all {limit['gflop']:.0f} GFLOP of products a step at the "
        f"{limit['gemm_gflop_per_second']:.0f} GFLOP/s measured in the run; {100 * limit['share']:.0f} % of it reached "
        f"in the last round. Optimizer {optimizer['ms']:.1f} ms, {100 * optimizer['share']:.2f} % of the step; attention "
        f"{100 * run['attention_share']:.1f} %.",
        "",
        "Lomu's last round, rank 0:",
        "",
        *operation_rows(run),
        "",
        "| memory | planned MB | peak MB |",
        "|---|---|---|",
        *(f"| {name} | {m['planned'] / 1e6:.1f} | {m['peak'] / 1e6:.1f} |" for name, m in run["memory"].items()),
        "",
        "Commands, in turn:",
        "",
        *(f"    {command}" for command in machine["commands"]),
    ]
    return "\n".join(lines) + "\n"


def write(path, text):
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    result = {"machine": json.loads((folder / "machine.json").read_text(encoding="utf-8"))}
    runs = {engine: read_runs(folder, engine) for engine in ("lomu", "peft")}
    result["lomu"] = summarise(runs["lomu"])
    if runs["peft"]:
        result["peft"] = summarise(runs["peft"])
        pairs = zip(runs["lomu"], runs["peft"])
        result["ratio"] = summary([a["tokens_per_second"]["median"] / b["tokens_per_second"]["median"] for a, b in pairs])
    result["runs"] = runs
    markdown = as_markdown(result)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target.with_name(target.name + ".json"), json.dumps(result, indent=2) + "\n")
    write(target.with_name(target.name + ".md"), markdown)
    sys.stdout.write(markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
