"""compute-sanitizer for launch/gpu-check: where it is, what it is asked, and what its reports say."""

import os
import re
import shutil

from gpu_check_steps import Failed, TimedOut, package_folders

# Beside what is common. memcheck looks at libraries too, because they are given our pointers and sizes; what else is
# checked lies inside a kernel, and libraries' kernels are not ours to judge and many.
OURS = ["--kernel-name", "kernel_substring=4lomu"]  # a namespace, as names are mangled
OPTIONS = {
    # A gap after every allocation, so that the next one does not hide what runs over the end of this.
    "memcheck": ["--padding", "256"],
    "racecheck": OURS,
    "synccheck": OURS,
    "initcheck": OURS,
}
FOUND = 9  # exit code
# Read by the tests for a device: one run of each is enough, and memcheck shall see the end of every buffer.
ONE_RUN = {"LOMU_EMULATION_SCHEDULES": "1"}
SEPARATE = {"LOMU_SEPARATE_BLOCKS": "1"}


def find():
    """The program, or None: named by LOMU_GPU_CHECK_SANITIZER, on PATH, of a toolkit, of a Python package."""
    asked = os.environ.get("LOMU_GPU_CHECK_SANITIZER")
    if asked:
        return asked
    folders = [f"{os.environ.get('LOMU_CUDA_ROOT', '/usr/local/cuda')}/bin", *package_folders("bin")]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def findings(output):
    """How many a report counts, and its first; raises Failed for an output without a count."""
    count = re.search(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", output, re.MULTILINE)
    if count is None:
        raise Failed("compute-sanitizer counts nothing: it did not get to its end")
    told = [line.strip("= ") for line in output.splitlines() if line.startswith("=========")]
    first = next((line for line in told if line and not line.startswith(("COMPUTE-SANITIZER", "ERROR SUMMARY",
                                                                         "RACECHECK SUMMARY"))), "")
    return int(count.group(1)), first


def run(shell, program, tool, commands):
    """Watches each of `commands` (name: command) by `tool`. All are run, whatever is found in one; raises Failed with
    what was found. What the time does not suffice for is named, as a short result."""
    options = ["--tool", tool, "--error-exitcode", FOUND, *OPTIONS[tool]]
    environment = {**shell.environment, **ONE_RUN, **(SEPARATE if tool == "memcheck" else {})}
    counts, wrong = {}, []
    for name, command in commands.items():
        try:
            count, first = findings(shell.run([program, *options, *command], expect=(0, FOUND), environment=environment))
        except TimedOut:
            break
        except Failed as failure:
            count, first = None, str(failure)
        counts[name] = count
        if count != 0:
            wrong.append(f"{name}: {first}" if count is None else f"{name}: {count}, the first: {first}")
    if wrong:
        raise Failed("; ".join(wrong))
    left = [name for name in commands if name not in counts]
    if not counts:
        raise TimedOut()
    text = f"nothing found in {', '.join(counts)}"
    if left:
        return f"{text}; no time for {', '.join(left)} (--patience gives more)", {"findings": counts}, "short"
    return text, {"findings": counts}
