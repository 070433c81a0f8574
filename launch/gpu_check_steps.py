"""Steps of launch/gpu-check: each with a time limit, one after the other whatever becomes of them, their output in a log
each, their results in one JSON file that is whole after every step."""

import glob
import json
import os
import pathlib
import signal
import site
import subprocess
import time


def package_folders(name):
    """Folders of this name (lib, bin) of NVIDIA's packages for this Python."""
    return [folder for packages in site.getsitepackages() + [site.getusersitepackages()]
            for folder in sorted(glob.glob(f"{packages}/nvidia/*/{name}")) if os.path.isdir(folder)]


class Failed(Exception):
    """A step came to a wrong result."""


class Skipped(Exception):
    """A step cannot be made here; the reason is the message."""


class TimedOut(Exception):
    """A command ran into the limit of its step."""


class Shell:
    """Runs the commands of one step: under its time limit, with everything they print in its log."""

    def __init__(self, log, limit, environment):
        self.log = log
        self.end = time.monotonic() + limit
        self.environment = environment

    def left(self):
        return self.end - time.monotonic()

    def run(self, command, expect=(0,), folder=None, environment=None):
        """Standard output of a command. Raises Failed for an exit code that is not in `expect`, TimedOut. `environment`:
        in place of that of all steps."""
        words = [str(word) for word in command]
        with open(self.log, "ab") as log:
            log.write(("$ " + " ".join(words) + "\n").encode())
            log.flush()
            try:
                # A session of its own, so that whatever it starts ends with it.
                process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                           start_new_session=True, cwd=folder, env=environment or self.environment)
            except OSError as error:
                raise Failed(f"{words[0]} cannot be started: {error.strerror}") from None
            try:
                output, _ = process.communicate(timeout=max(self.left(), 0.1))
            except subprocess.TimeoutExpired:
                end_session(process)
                raise TimedOut() from None
            except BaseException:
                end_session(process)
                raise
            log.write(output)
        text = output.decode(errors="replace")
        if process.returncode not in expect:
            code = process.returncode
            how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
            raise Failed(f"{pathlib.Path(words[0]).name}: {how}{last_words(self.log)}")
        return text

    def json(self, command, **options):
        """What a command prints, as JSON."""
        text = self.run(command, **options)
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise Failed(f"{pathlib.Path(str(command[0])).name} printed no JSON") from None


def end_session(process):
    """Ends a command and all that it started: politely, then for certain."""
    for how, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        try:
            os.killpg(process.pid, how)
            process.communicate(timeout=patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            pass


def last_words(log):
    """The error line at the end of a log, for the table."""
    lines = log.read_text(errors="replace").splitlines()[-40:]
    told = [line.strip() for line in lines if "error" in line.lower() or "FAIL" in line]
    return f" ({told[-1][:160]})" if told else ""


class Check:
    """The whole check: its folder, its time, its results."""

    MARKS = {"pass": "32", "short": "33", "FAIL": "1;31", "timeout": "1;31", "skipped": "2"}

    def __init__(self, out, minutes, environment, colour=False):
        self.out = out
        self.environment = environment
        self.colour = colour
        self.started = time.monotonic()
        self.end = self.started + 60 * minutes
        self.facts = {}
        self.steps = []
        (out / "logs").mkdir(parents=True, exist_ok=True)

    def step(self, name, limit, body):
        """Calls body(shell) -> (text, figures) or (text, figures, "short"), for a figure that falls short of its aim."""
        log = self.out / "logs" / (name.replace(" ", "-").replace("/", "-") + ".log")
        log.write_bytes(b"")
        begin = time.monotonic()
        left = self.end - begin
        figures, status = {}, "pass"
        try:
            if left < 3:
                raise Skipped("no time left")
            text, figures, *other = body(Shell(log, min(limit, left), self.environment))
            status = other[0] if other else "pass"
        except Skipped as reason:
            status, text = "skipped", str(reason)
        except TimedOut:
            if left < limit:
                status, text = "skipped", f"cut off after {left:.0f} s: the whole check is out of time"
            else:
                status, text = "timeout", f"not done after {limit:.0f} s"
        except Failed as failure:
            status, text = "FAIL", str(failure)
        except Exception as error:  # pylint: disable=broad-except  # the other steps shall still run
            status, text = "FAIL", f"{type(error).__name__}: {error}"
        step = {"name": name, "status": status, "seconds": round(time.monotonic() - begin, 2), "result": text,
                "figures": figures, "log": str(log.relative_to(self.out))}
        self.steps.append(step)
        self.write()
        print(self.line(step), flush=True)
        return step

    def line(self, step):
        mark = f"{step['status']:<7}"
        if self.colour:
            mark = f"\033[{self.MARKS[step['status']]}m{mark}\033[0m"
        return f"{mark}  {step['seconds']:6.1f} s  {step['name']:<26}  {step['result']}"

    def failed(self):
        return [step["name"] for step in self.steps if step["status"] in ("FAIL", "timeout")]

    def write(self):
        """The results so far, under another name first: whoever reads them never sees half."""
        document = {"ok": not self.failed(), "seconds": round(time.monotonic() - self.started, 1), **self.facts,
                    "steps": self.steps}
        part = self.out / "gpu-check.json.part"
        part.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        part.replace(self.out / "gpu-check.json")
