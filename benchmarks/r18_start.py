"""Row 18: CPU time of `--help` and of a refusal, as a share of importing everything."""

import os
import subprocess
import sys
import tempfile

from benchmarks.measure import ROUNDS, Report, ratios

_COMMANDS = {
    "help": [sys.executable, "-m", "main", "--help"],
    "refusal": [sys.executable, "-m", "main", "train", "opt_lora", "rte", "--batch-sise", "8"],
    "everything": [
        sys.executable,
        "-c",
        "import torch, transformers, lightning, torchmetrics; from transformers import AutoModelForCausalLM;"
        " import main, dataset.encoding, dataset.module, model.assembly, model.backbone, model.job,"
        " model.training, model.actions.train, model.actions.test",
    ],
    "interpreter": [sys.executable, "-c", "pass"],
}


def cpu_seconds(command: list[str], bytecode: str) -> float:
    """Run a command to its end and return the CPU time it used, user and system.

    Compiled modules are kept in `bytecode`, as they are for a user, whatever the environment variables are.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env={**kept, "PYTHONPYCACHEPREFIX": bytecode}, **quiet)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure each command once a round, in turn."""
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    with tempfile.TemporaryDirectory() as bytecode:
        for number in range(1 + ROUNDS):
            for name, command in _COMMANDS.items():
                spent = cpu_seconds(command, bytecode)
                if number:
                    times[name].append(spent)
    report = Report("18", "CPU time, share of importing everything")
    report.add("--help", ratios(times, "help", "everything"), goal=0.015, peer="1")
    report.add("a refusal (misspelt option)", ratios(times, "refusal", "everything"), goal=0.015, peer="1")
    report.add("bare interpreter, for comparison", ratios(times, "interpreter", "everything"))
    report.finish()


if __name__ == "__main__":
    main()
