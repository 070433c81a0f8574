"""launch/gpu-check without a GPU: its steps pass, fail, run out of time and are skipped as they should."""

import array
import contextlib
import io
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
sys.path.insert(0, str(LAUNCH))

import gpu_check_sanitizer as sanitizer  # noqa: E402
import gpu_check_training as training  # noqa: E402
from gpu_check_steps import Check, Failed, Skipped  # noqa: E402


class InFolder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)


class StepsTest(InFolder):
    def check(self, minutes=1.0):
        return Check(self.folder, minutes, dict(os.environ))

    def step(self, body, limit=20.0, check=None):
        with contextlib.redirect_stdout(io.StringIO()):
            return (check or self.check()).step("one step", limit, body)

    def test_a_step_that_passes_has_its_figures_in_the_file(self):
        step = self.step(lambda shell: (shell.run(["echo", "hello"]).strip(), {"n": 3}))
        self.assertEqual((step["status"], step["result"]), ("pass", "hello"))
        document = json.loads((self.folder / "gpu-check.json").read_text())
        self.assertTrue(document["ok"])
        self.assertEqual(document["steps"][0]["figures"], {"n": 3})
        self.assertIn("$ echo hello\nhello\n", (self.folder / step["log"]).read_text())

    def test_a_command_that_fails_is_told_with_its_error_and_others_go_on(self):
        check = self.check()
        step = self.step(lambda shell: (shell.run(["sh", "-c", "echo error: bad thing >&2; exit 7"]), {}), check=check)
        self.assertEqual(step["status"], "FAIL")
        self.assertIn("exit code 7", step["result"])
        self.assertIn("bad thing", step["result"])
        self.assertEqual(self.step(lambda shell: ("fine", {}), check=check)["status"], "pass")
        self.assertEqual(check.failed(), ["one step"])
        self.assertFalse(json.loads((self.folder / "gpu-check.json").read_text())["ok"])

    def test_a_signal_a_missing_program_and_a_mistake_of_ours_are_failures(self):
        killed = self.step(lambda shell: (shell.run(["sh", "-c", "kill -SEGV $$"]), {}))
        self.assertIn("signal 11", killed["result"])
        self.assertIn("cannot be started", self.step(lambda shell: (shell.run(["/no/such/program"]), {}))["result"])
        self.assertEqual(self.step(lambda shell: (1 / 0, {}))["status"], "FAIL")
        self.assertIn("no JSON", self.step(lambda shell: (shell.json(["echo", "{"]), {}))["result"])

    def test_a_step_over_its_limit_ends_with_all_that_it_started(self):
        file = self.folder / "pid"
        begin = time.monotonic()
        step = self.step(lambda shell: (shell.run(["sh", "-c", f"sleep 60 & echo $! > {file}; wait"]), {}), limit=0.5)
        self.assertEqual(step["status"], "timeout")
        self.assertLess(time.monotonic() - begin, 10)
        for _ in range(50):
            state = subprocess.run(["ps", "-o", "stat=", "-p", file.read_text().strip()], capture_output=True, text=True,
                                   check=False).stdout.strip()
            if not state or state.startswith("Z"):
                return
            time.sleep(0.1)
        self.fail("the child of a step that timed out still runs")

    def test_one_that_ignores_the_signal_ends_too(self):
        begin = time.monotonic()
        self.assertEqual(self.step(lambda s: (s.run(["sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"]), {}),
                                   limit=0.5)["status"], "timeout")
        self.assertLess(time.monotonic() - begin, 15)

    def test_skipped_and_short_are_no_failures(self):
        check = self.check()

        def skipped(_):
            raise Skipped("nothing there")
        self.assertEqual(self.step(skipped, check=check)["status"], "skipped")
        self.assertEqual(self.step(lambda _: ("slow", {}, "short"), check=check)["status"], "short")
        self.assertEqual(check.failed(), [])

    def test_what_the_whole_check_has_no_time_for_is_skipped(self):
        self.assertEqual(self.step(lambda _: ("never", {}), check=self.check(minutes=0))["status"], "skipped")
        cut = self.step(lambda shell: (shell.run(["sleep", "60"]), {}), check=self.check(minutes=3.5 / 60))
        self.assertEqual(cut["status"], "skipped")
        self.assertIn("out of time", cut["result"])


class TrainingTest(InFolder):
    def run_of(self, name, losses, numbers, tensor="a"):
        run = self.folder / name
        (run / "adapter").mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
        data = array.array("f", numbers).tobytes()
        header = json.dumps({"__metadata__": {"format": "pt"}, tensor: {
            "dtype": "F32", "shape": [len(numbers)], "data_offsets": [0, len(data)]}}).encode()
        (run / "adapter" / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
        return run

    def test_differences_are_relative(self):
        base = self.run_of("base", [2.0, 1.0], [3.0, 4.0])
        found = training.differences(base, self.run_of("other", [2.0, 1.5], [3.0, 4.5]))
        self.assertAlmostEqual(found["loss"], 0.5)
        self.assertAlmostEqual(found["adapter"], 0.1)
        self.assertEqual(found["tensor"], "a")
        self.assertEqual(training.differences(base, base), {"loss": 0, "adapter": 0, "worst": 0, "tensor": ""})

    def test_the_same_adapter_is_the_same_bytes(self):
        base = self.run_of("base", [1.0], [3.0, 4.0])
        self.assertTrue(training.same_adapter(base, self.run_of("equal", [2.0], [3.0, 4.0])))
        self.assertFalse(training.same_adapter(base, self.run_of("other", [1.0], [3.0, 4.0000005])))
        self.assertFalse(training.same_adapter(base, self.folder / "none"))

    def test_what_is_missing_or_not_a_number_is_no_agreement(self):
        base = self.run_of("base", [2.0, 1.0], [3.0, 4.0])
        for name, losses, numbers, tensor in (("shorter", [2.0], [3.0, 4.0], "a"), ("nan", [2.0, math.nan], [3.0, 4.0], "a")):
            self.assertEqual(training.differences(base, self.run_of(name, losses, numbers, tensor))["loss"], math.inf)
        for name, numbers, tensor in (("nans", [3.0, math.nan], "a"), ("names", [3.0, 4.0], "b")):
            self.assertEqual(training.differences(base, self.run_of(name, [2.0, 1.0], numbers, tensor))["adapter"], math.inf)


class SanitizerTest(InFolder):
    """Reports of compute-sanitizer, by a program that prints them."""

    CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
    WRONG = ("========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n=========     at kernel+0x70\n"
             "========= ERROR SUMMARY: 3 errors\n")

    def step(self, tool, reports, limit=20.0):
        """Watches one command for each report: name -> what the tool prints, or a script."""
        program = self.folder / "compute-sanitizer"
        program.write_text('#!/bin/sh\necho "$@" >>"$0.asked"\nenv | grep ^LOMU_ >>"$0.asked"\n'
                           'for last in "$@"; do :; done\n. "$last"\n')
        program.chmod(0o755)
        commands = {}
        for name, report in reports.items():
            script = self.folder / name
            script.write_text(report if report.startswith("#") else
                              f"cat <<'END'\n{report}END\nexit {0 if ' 0 ' in report else 9}\n")
            commands[name] = [script]
        check = Check(self.folder / "out", 1.0, dict(os.environ))
        with contextlib.redirect_stdout(io.StringIO()):
            step = check.step(tool, limit, lambda shell: sanitizer.run(shell, program, tool, commands))
        return step, (self.folder / "compute-sanitizer.asked").read_text()

    def test_a_clean_run_names_what_was_watched(self):
        step, asked = self.step("memcheck", {"verify": self.CLEAN, "tests": self.CLEAN})
        self.assertEqual((step["status"], step["result"]), ("pass", "nothing found in verify, tests"))
        self.assertIn("--tool memcheck --error-exitcode 9 ", asked)
        self.assertIn("LOMU_SEPARATE_BLOCKS=1", asked)
        log = (self.folder / "out" / step["log"]).read_text()
        self.assertEqual(log.count("ERROR SUMMARY: 0 errors"), 2)

    def test_a_finding_fails_and_the_rest_is_watched_all_the_same(self):
        step, asked = self.step("synccheck", {"first": self.WRONG, "second": self.CLEAN})
        self.assertEqual(step["status"], "FAIL")
        self.assertEqual(step["result"], "first: 3, the first: Invalid __global__ read of size 4 bytes")
        self.assertEqual(asked.count("--tool synccheck"), 2)
        self.assertNotIn("LOMU_SEPARATE_BLOCKS", asked)

    def test_hazards_are_counted_too(self):
        clean = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
        self.assertEqual(self.step("racecheck", {"tests": clean})[0]["status"], "pass")
        warned = ("========= Warning: Race reported between Read access and Write access\n"
                  "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)\n")
        step, _ = self.step("racecheck", {"tests": warned})
        self.assertEqual(step["status"], "FAIL")
        self.assertIn("tests: 1, the first: Warning: Race", step["result"])

    def test_a_report_without_a_count_and_tests_that_fail_are_failures(self):
        step, _ = self.step("memcheck", {"tests": "# nothing\nexit 0\n", "others": "# a test fails\nexit 1\n"})
        self.assertEqual(step["status"], "FAIL")
        self.assertIn("tests: compute-sanitizer counts nothing", step["result"])
        self.assertIn("others: compute-sanitizer: exit code 1", step["result"])

    def test_what_the_time_does_not_suffice_for_is_named(self):
        slow = "# slow\nsleep 60\n"
        step, _ = self.step("memcheck", {"verify": self.CLEAN, "slow": slow, "last": self.CLEAN}, limit=1.0)
        self.assertEqual(step["status"], "short")
        self.assertIn("nothing found in verify; no time for slow, last", step["result"])
        self.assertEqual(self.step("memcheck", {"slow": slow}, limit=0.5)[0]["status"], "timeout")


class WholeTest(InFolder):
    """The program itself, on the CPU in place of a GPU."""

    def gpu_check(self, *arguments, **environment):
        return subprocess.run([sys.executable, "-B", LAUNCH / "gpu-check", "--out", self.folder / "out", *arguments],
                              env={**os.environ, "LOMU_GPU_CHECK_DEVICE": "cpu", **environment}, capture_output=True,
                              text=True, check=False)

    def test_wrong_use(self):
        done = self.gpu_check("--build", self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no program lomu", done.stderr)
        self.assertEqual(self.gpu_check("--build", self.folder, LOMU_GPU_CHECK_DEVICE="tpu").returncode, 2)

    def test_a_program_that_fails_fails_its_steps(self):
        program = self.folder / "lomu"
        program.write_text("#!/bin/sh\necho 'lomu: error: out of order' >&2\nexit 1\n")
        program.chmod(0o755)
        done = self.gpu_check("--build", self.folder, "--only", "facts", "--only", "training", "--only", "memcheck")
        self.assertEqual(done.returncode, 1)
        self.assertIn("out of order", done.stdout)
        steps = json.loads((self.folder / "out" / "gpu-check.json").read_text())["steps"]
        self.assertEqual([step["status"] for step in steps], ["FAIL", "FAIL", "skipped"])

    @unittest.skipUnless("LOMU_BUILD" in os.environ, "needs a build")
    def test_facts_and_training_of_a_build(self):
        done = self.gpu_check("--build", os.environ["LOMU_BUILD"], "--only", "facts", "--only", "training",
                              "--only", "sweep", "--only", "ranks")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        document = json.loads((self.folder / "out" / "gpu-check.json").read_text())
        self.assertTrue(document["ok"])
        self.assertIn("commit", document["doctor"]["build"])
        steps = {step["name"]: step for step in document["steps"]}
        self.assertLess(steps["training 20 steps"]["figures"]["f32"]["loss"], 1e-5)
        for name in ("attention sweep", "product sweep"):
            self.assertGreater(len(steps[name]["figures"]["points"]), 1)
        self.assertIn("every bit", steps["ranks on one GPU"]["result"])


if __name__ == "__main__":
    unittest.main()
