"""Check whether another program can load an adapter, and write a copy that it can load.

Source: vLLM's `vllm/lora/peft_helper.py` and `vllm/lora/utils.py`; the ranks are those of its option
max-lora-rank. It reads only lora_A and lora_B and applies one scale to all modules, without patterns. The
rules of llama.cpp are in model.exchange.llama_cpp.

Usage: python -m tools.export ADAPTER_DIR --check vllm|llama.cpp [--max-lora-rank 16]
       python -m tools.export ADAPTER_DIR --output DIR [--compact] [--base-name NAME] [--check ...]
           [--with DIR,DIR [--weights 0.5,0.25,0.25]]
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from configs.command_line.tool_flags import Flag, Text, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import place_faults
from configs.schema.number_values import Real, whole_number
from configs.schema.values import Choice, Listed, PathText, Switch, refusal
from model.exchange.adapter_config import FACTOR, PREFIX, config_faults, rank_and_scale
from model.exchange.adapter_directory import TASKS, AdapterFiles, extra_methods, labels, read_files
from model.exchange.llama_cpp import llama_cpp_refusals
from model.run.model_card import CardFacts, model_card

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM's option accepts."""


@dataclass(frozen=True)
class _Rank:
    """A rank that vLLM's option accepts."""

    def read(self, text: str) -> int:
        """Read the text of a flag."""
        return self.take(whole_number(text), text)

    def take(self, value: Any, written: str = "") -> int:
        """Check a number."""
        if value not in RANKS:
            raise refusal(self.words(), written or str(value))
        return value

    def words(self) -> str:
        """List the ranks."""
        return f"one of {', '.join(map(str, RANKS))}"


_FLAGS = (
    Flag("ADAPTER_DIR", PathText(), "A PEFT adapter directory, or a run directory.", required=True),
    Flag("--check", Choice("reader", ("vllm", "llama.cpp")), "Program to check for."),
    Flag("--max-lora-rank", _Rank(), "Value of vLLM's option of this name.", default=16),
    Flag("--output", PathText(), "Directory to create: a copy with one rank and scale for all modules."),
    Flag(
        "--compact",
        Switch(),
        "Smaller copy, with ranks as patterns.",
        default=False,
    ),
    Flag("--base-name", Text(), "base_model_name_or_path of the copy."),
    Flag("--with", Listed(PathText()), "Further adapters, added in one LoRA whose rank is the sum."),
    Flag("--weights", Text(), "What the adapters are multiplied by, ADAPTER_DIR first; 1 for each."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, write a copy if asked to, print the options to serve it with; return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.export", "Check an adapter for other programs, and copy it.", _FLAGS, words)
        findings = Findings()
        findings.lines += _flag_faults(given)
        found = findings.attempt(lambda: read_files(given.adapter_dir, "ADAPTER_DIR"))
        if found is not None:
            findings.lines += _refusals(found, given, folds=given.output is not None)
        findings.lines += [] if given.output is None else place_faults("--output", given.output)
        added = findings.attempt(partial(_added, given))
        files = findings.settled(found)
        if given.output is not None:
            from model.exchange.copying import copy_adapter

            check = partial(_refusals, given=given, folds=False)
            copy_adapter(
                files,
                given.output,
                check,
                card=_card(files, given),
                base=given.base_name,
                compact=given.compact,
                added=added,
            )
            console.say(f"exported: {given.output} (read back)")
        place = given.output or files.path
        if given.check == "vllm":
            console.say(f"vllm: serve with {serving(largest_rank(files), place)}")
        elif given.check:
            console.say(f"llama.cpp: convert with convert_lora_to_gguf.py --base BASE {place}")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def _card(files: AdapterFiles, given: SimpleNamespace) -> str:
    """Return the copy's model card: the original's where there is one for the same base, else a new one."""
    original = files.path / "README.md"
    if original.is_file() and given.base_name is None and not getattr(given, "with"):
        return original.read_text(encoding="utf-8", errors="replace")
    recorded = files.metadata.get("evaluation", {})
    by_type = {"CAUSAL_LM": "causal_language_modeling", "SEQ_CLS": "classification"}
    task = recorded.get("task") or by_type.get(str(files.config.get("task_type")))
    return model_card(
        CardFacts(
            base=given.base_name or str(files.config.get("base_model_name_or_path") or "base"),
            task=task if task in TASKS else None,
            methods={"lora"},
            dataset=recorded.get("dataset"),
            classes=len(labels(files)),
            template=files.template,
        )
    )


def _flag_faults(given: SimpleNamespace) -> list[str]:
    """Return a fault for each combination of flags that is not allowed."""
    if given.output is None:
        others = sorted(given.given & {"--compact", "--base-name", "--with", "--weights"})
        faults = [f"{flag}: only with --output" for flag in others]
        return faults if given.check else [*faults, "--check: required, unless --output is given"]
    return []


def _added(given: SimpleNamespace) -> dict[Path, float] | None:
    """Return adapter -> its number of --weights for all that --with adds up; None without --with.

    Raises:
        InputFault: for an adapter that cannot be read, and for weights that are no numbers or too few.
    """
    others = getattr(given, "with") or ()
    if not others:
        return None if given.weights is None else _refuse("--weights: only with --with")
    places = [read_files(given.adapter_dir, "ADAPTER_DIR").path]
    places += [read_files(place, "--with").path for place in others]
    if len(set(places)) < len(places):
        raise InputFault("--with: an adapter is given twice; give it once, with a larger weight")
    try:
        words = given.weights.split(",") if given.weights else ["1"] * len(places)
        weights = [Real(-1e30, 1e30).read(word) for word in words]
    except ValueError as refused:
        raise InputFault(f"--weights: {refused}") from None
    if len(weights) != len(places):
        raise InputFault(f"--weights: {len(weights)} of them for {len(places)} adapters")
    return dict(zip(places, weights))


def _refuse(line: str) -> NoReturn:
    raise InputFault(line)


def _refusals(files: AdapterFiles, given: SimpleNamespace, *, folds: bool) -> list[str]:
    """Return what the program of --check refuses; without one, what PEFT itself does not represent."""
    if given.check == "vllm":
        return refusals(files, given.max_lora_rank, folds=folds)
    if given.check == "llama.cpp":
        found = {} if list(config_faults(files.config, "")) else scales(files)
        return list(llama_cpp_refusals(files, found, folds=folds))
    return []


def refusals(files: AdapterFiles, max_rank: int, *, folds: bool) -> list[str]:
    """Return a line for each thing that vLLM's reader would refuse or misread.

    Args:
        files: the adapter.
        max_rank: the value of --max-lora-rank.
        folds: whether a copy is written, with every scale multiplied into B.
    """
    where, config = str(files.path / "adapter_config.json"), files.config
    lines = [f"{where}: {key}: vLLM requires it" for key in ("r", "lora_alpha", "target_modules")
             if key not in config]  # fmt: skip
    if config.get("peft_type") != "LORA":
        lines.append(f"{where}: peft_type: vLLM supports only LORA, got {config.get('peft_type')!r}")
    if config.get("bias", "none") != "none":
        lines.append(f"{where}: bias: vLLM does not support biases in adapters, got {config['bias']!r}")
    if config.get("use_dora"):
        lines.append(f"{where}: use_dora: vLLM does not support DoRA")
    lines += _pattern_faults(config, where)
    lines += _whole_tensors(files)
    apart = extra_methods(files.metadata)
    has_extra = (files.path / "extra.safetensors").exists()
    if apart or (has_extra and not files.metadata.get("extra")):
        what = ", ".join(apart) or "adapters that are not plain LoRA"
        file = "extra.safetensors" if has_extra else "metadata.json"
        lines.append(
            f"{files.path / file}: vLLM does not support {what}, and without them the"
            " outputs would differ; use tools.generate instead"
        )
    rank = largest_rank(files)
    if rank > RANKS[-1]:
        lines.append(f"{where}: r: rank {rank} is above {RANKS[-1]}, the largest that vLLM supports")
    elif rank > max_rank:
        flag = f"--max-lora-rank {least_rank(rank)}"
        lines.append(f"{where}: r: rank {rank} is above --max-lora-rank {max_rank}; serve with {flag}")
    if not folds and not lines and len(set(scales(files).values()) | {_scale(config)}) > 1:
        lines.append(
            f"{where}: alpha_pattern: vLLM applies the scale {_scale(config):g} to every module, this"
            " adapter has others; --output writes a copy with the scales multiplied into B"
        )
    return lines


def largest_rank(files: AdapterFiles) -> int:
    """Return the largest rank of the configuration and the tensors."""
    shapes = [info.shape for name, info in files.tensors.items() if name.endswith("lora_A.weight")]
    return max([*(shape[0] for shape in shapes if shape), _number(files.config.get("r"))])


def least_rank(rank: int) -> int:
    """Return the smallest value of vLLM's option that fits a rank."""
    return next(one for one in RANKS if one >= rank)


def scales(files: AdapterFiles) -> dict[str, float]:
    """Return module -> the scale that PEFT applies, patterns included."""
    where = str(files.path / "adapter_config.json")
    matches = (FACTOR.match(name.removeprefix(PREFIX)) for name in files.tensors)
    modules = [match["module"] for match in matches if match and match["factor"] == "A"]
    return {module: rank_and_scale(files.config, module, where)[1] for module in modules}


def serving(rank: int, place: Any) -> str:
    """Return the options to serve the adapter with."""
    return f"--enable-lora --max-lora-rank {least_rank(rank)} --lora-modules NAME={place}"


def _whole_tensors(files: AdapterFiles) -> list[str]:
    """Return a line for modules saved whole, and one for tensor names that vLLM does not read."""
    whole = [name for name in files.tensors if "lora_" not in name]
    named = files.config.get("modules_to_save")
    lines = []
    if named or whole:
        what = ", ".join(named) if isinstance(named, list) and named else str(named or min(whole))
        lines.append(
            f"{files.path / 'adapter_config.json'}: modules_to_save: vLLM does not support modules saved"
            f" whole ({what}), and without them the outputs would differ; merge it with tools.merge instead"
        )
    # Its reader takes no name of an adapter within a tensor's name, as PEFT's does.
    loras = [name for name in files.tensors if "lora_" in name]
    odd = [name for name in loras if not FACTOR.match(name.removeprefix(PREFIX)) or ".default." in name]
    if odd:
        lines.append(f"{files.path / 'adapter_model.safetensors'}: {min(odd)}: not a tensor that vLLM reads")
    return lines


def _pattern_faults(config: Mapping[str, Any], where: str) -> list[str]:
    """Return the faults of the tables of patterns, which vLLM ignores and PEFT applies."""
    lines = []
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            lines.append(f"{where}: {key}: must be a table of patterns")
            continue
        for pattern, value in patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                lines.append(f"{where}: {key}: {pattern}: not a valid regular expression: {error}")
            if _number(value) == 0:
                lines.append(f"{where}: {key}: {pattern}: must be a number other than 0, got {value!r}")
    return lines


def _scale(config: Mapping[str, Any]) -> float:
    rank, alpha = _number(config.get("r")), _number(config.get("lora_alpha"))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank) if rank > 0 else 0.0


def _number(value: Any) -> Any:
    return value if type(value) in (int, float) else 0


if __name__ == "__main__":
    sys.exit(main())
