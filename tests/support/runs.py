"""Run the program on tiny hosts and read what it leaves: what the system tests share."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.toml.writer import toml_text
from tests.support.tiny import gsm8k_rows, rte_rows, save_host, write_gsm8k, write_rte

ROOT = Path(__file__).resolve().parents[2]
COMPARABLE = ("metrics.csv", "summary.json", "lora.toml", "shortcut.toml", "adapter", "search")
"""What equal runs leave byte for byte equal."""
ENTRY = {
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "adapter_name": "default",
    "disable_adapter": False,
}
PROJECTION = {
    "r": 2,
    "shortcut_alpha": 4,
    "proj_dropout": 0.0,
    "projector_name": "default",
    "disable_projector": False,
}


@dataclass(frozen=True)
class Ground:
    """Hosts, plans and rows that runs share, made on first use.

    Args:
        base: their directory.
    """

    base: Path

    def host(self, family: str) -> Path:
        """Return a tiny host's directory."""
        path = self.base / family
        return path if path.exists() else save_host(family, path)

    def plan(self, name: str = "plain", tables: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        """Return a LoRA TOML: rank 4 at every site, `keys` put into its default."""
        path = self.base / f"{name}.toml"
        path.write_text(toml_text({"default": {**ENTRY, **keys}, **(tables or {})}))
        return path

    def shortcuts(
        self, name: str = "shortcuts", tables: Mapping[str, Any] | None = None, **keys: Any
    ) -> Path:
        """Return a shortcut TOML: rank 2 at every place, `keys` put into its default."""
        path = self.base / f"{name}.toml"
        path.write_text(toml_text({"default": {**PROJECTION, **keys}, **(tables or {})}))
        return path

    def rte(self, name: str = "RTE", **counts: int) -> Path:
        """Return a directory in the layout of RTE."""
        path = self.base / name
        return path if path.exists() else write_rte(path, **counts)

    def gsm8k(self) -> Path:
        """Return a directory in the layout of GSM8K."""
        path = self.base / "gsm8k"
        return path if path.exists() else write_gsm8k(path)

    def mixture(self) -> Path:
        """Return a config TOML of GSM8K (38 rows) and own rows (12), weighted alike."""
        path = self.base / "mixture.toml"
        for name, count in (("own_train", 12), ("own_dev", 4)):
            rows = (json.dumps({"q": row["question"], "a": "No."}) for row in gsm8k_rows(count, seed=count))
            (self.base / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        own = {
            "dataset": "local",
            "name": "own",
            "weight": 0.5,
            "train": str(self.base / "own_train.jsonl"),
            "validation": str(self.base / "own_dev.jsonl"),
            "template": "Q: {q}\nA: ",
            "response": "a",
        }
        gsm8k = {"dataset": "gsm8k", "weight": 0.5, "dataset_dir": str(self.gsm8k())}
        path.write_text(toml_text({"dataset": "mix", "data": {"mix": [gsm8k, own]}}))
        return path

    def table(
        self, folder: str, columns: Sequence[str], files: Mapping[str, Sequence[Sequence[Any]]]
    ) -> Path:
        """Write tab-separated files into a folder and return it."""
        path = self.base / folder
        path.mkdir(exist_ok=True)
        for name, rows in files.items():
            lines = ["\t".join(map(str, row)) for row in (columns, *rows)]
            (path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def words(self, family: str = "opt", **options: Any) -> list[str]:
        """Return a `train FAMILY_lora rte` command line: two epochs of four steps, changed by `options`.

        With `shortcut_config` among them the model is FAMILY_lora_ags.
        """
        defaults = {
            "load": self.host(family),
            "lora_config": self.base / "plain.toml",
            "dataset_dir": self.rte(),
            "batch_size": 8,
            "max_epochs": 2,
            "learning_rate": 0.01,
        }
        if "lora_config" not in options:
            self.plan()
        model = f"{family}_lora_ags" if "shortcut_config" in options else f"{family}_lora"
        return ["train", model, "rte", *flags({**defaults, **options})]


def flags(options: Mapping[str, Any]) -> list[str]:
    """Return options as command-line words; True is a switch, None leaves one out."""
    words: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += [] if value is None else [flag] if value is True else [flag, str(value)]
    return words


def launch(*words: Any) -> int:
    """Call `main` in this process and leave the environment as it was."""
    from main import main

    kept = dict(os.environ)
    try:
        return main([str(word) for word in words])
    finally:
        os.environ.clear()
        os.environ.update(kept)


def run(directory: Path, *words: Any) -> Path:
    """Run to the end in this process and return the run directory."""
    assert launch(*words, "--project-dir", directory.parent, "--project", directory.name) == 0
    return directory


def program(
    *words: Any, cwd: Path = ROOT, module: str = "main", timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess:
    """Run `python -m main` in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, words)]
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    surroundings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        command, cwd=cwd, env=surroundings, capture_output=True, text=True, timeout=timeout, check=False
    )


def _context() -> Any:
    """Return a context whose processes have the libraries but have run nothing yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.killed"])
    return context


def fork(target: Any, *arguments: Any, after: float | None = None) -> int:
    """Call a function of `tests.support.killed` in a process that has the libraries but has run nothing yet.

    Args:
        target: the function.
        arguments: its arguments.
        after: seconds after which the process is killed.

    Returns:
        The exit code; minus the signal's number where a signal ended the process.
    """
    process = _context().Process(target=target, args=arguments)
    process.start()
    process.join(120 if after is None else after)
    if process.is_alive() and after is not None:
        process.kill()
        process.join()
    elif process.is_alive():
        process.kill()
        raise AssertionError("the process did not end within 120 s")
    return process.exitcode


def pair(directory: Path, *words: Any, driver: tuple = (), codes: Sequence[int] = (0, 0)) -> str:
    """Run in two processes, started as torchrun starts them, and return what they printed.

    The libraries are imported once for all pairs. Processes start as they do for users in
    `tests/end_to_end/processes/test_ddp.py`.

    Args:
        directory: the run's.
        words: the command line.
        driver: point, step, rank and signal of `tests.support.killed`.
        codes: exit codes that the two must have.
    """
    from tests.support.killed import member

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = [*words, "--project-dir", directory.parent, "--project", directory.name]
    line = [str(word) for word in (*named, "--num-devices", 2, "--accelerator", "cpu")]
    processes = [
        _context().Process(target=member, args=(number, port, directory, driver, line)) for number in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
        process.kill()
    logs = (directory.with_name(f"{directory.name}-{number}.log").read_text() for number in (0, 1))
    text = "".join(logs)
    found = [process.exitcode for process in processes]
    assert found == list(codes), f"{found}\n{text}"
    return text


def comparable(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every comparable artefact of a run by name; pictures are none."""
    files = [path for name in COMPARABLE for path in (directory / name, *(directory / name).rglob("*"))]
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in files
        if path.is_file() and path.suffix != ".png"
    }


def summary(directory: Path) -> dict[str, Any]:
    """Return a run's summary."""
    return json.loads((directory / "summary.json").read_text())


def rows(directory: Path, name: str = "train/loss") -> dict[int, float]:
    """Return step -> value of one name in a run's metrics.csv."""
    lines = [line.split(",") for line in (directory / "metrics.csv").read_text().splitlines()[1:]]
    return {int(step): float(value) for step, _, one, value in lines if one == name}


def files(directory: Path) -> set[str]:
    """Return the files below a directory by relative path."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def pair_rows(count: int, labels: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return (index, sentence1, sentence2, label) rows; denied second sentences have the last label."""
    return [
        (i, first, second, labels[-1] if label == "not_entailment" else labels[i // 2 % (len(labels) - 1)])
        for i, (first, second, label) in enumerate(rte_rows(count))
    ]
