"""Run every row, each in a process of its own; one that fails does not stop the others.

`python -m benchmarks.run_all [--dataset-dir FOLDER] [--only 03 04]`
"""

import argparse
import subprocess
import sys
from pathlib import Path


def rows() -> list[str]:
    """Return the modules of this folder that measure rows."""
    return sorted(path.stem for path in Path(__file__).parent.glob("r[0-9][0-9]_*.py"))


def main() -> int:
    """Run them in order and return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--dataset-dir", type=Path, help="folder with RTE, MRPC, SST-2; without it row 16 is left out"
    )
    parser.add_argument("--only", nargs="+", default=[], help="row numbers, e.g. 03 04")
    arguments = parser.parse_args()
    failed = []
    for name in rows():
        if arguments.only and name[1:3] not in arguments.only:
            continue
        further = []
        if name.startswith("r16"):
            if arguments.dataset_dir is None:
                print(f"\n{name}: left out, it needs --dataset-dir", flush=True)
                continue
            further = ["--dataset-dir", str(arguments.dataset_dir)]
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *further]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
