"""Write a copy of an adapter in this project's form, compared with the original."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.runtime.files import replacing_directory, write_text
from model.exchange.adapter_directory import AdapterFiles, find_adapter, read_files
from model.exchange.factors import Factors
from model.exchange.fusion import concatenated
from model.exchange.peft_format import as_peft_has_it, read, write

CARD = "README.md"
_ROUNDING = 1e-6
"""Largest relative difference of B that multiplying its scale in explains."""


def copy_adapter(
    files: AdapterFiles,
    output: Path,
    check: Callable[[AdapterFiles], Sequence[str]],
    *,
    card: str,
    base: str | None = None,
    compact: bool = False,
    added: Mapping[Path, float] | None = None,
) -> None:
    """Write a copy with one rank and scale, and compare and check it before it is put in place.

    Args:
        files: the original.
        output: where the copy goes; it must not exist.
        check: files -> what the program that will read them refuses, a line each.
        card: the content of the copy's README.md.
        base: name of the base in the copy; None: the original's.
        compact: keep the ranks and write them as patterns.
        added: the original and further adapters -> what each is multiplied by in one LoRA of all of them;
            None: the original alone.

    Raises:
        InputFault: when the original cannot be read, or the copy is refused.
        RuntimeError: when the copy has another effect.
    """
    adapter = read(files.path, "ADAPTER_DIR")
    if added:
        sets = [read(find_adapter(place, "--with"), "--with") for place in added]
        adapter = concatenated(sets, list(added.values()))
    facts = _facts(files.config) | ({"base": base} if base else {})
    with replacing_directory(output) as draft:
        write(draft, as_peft_has_it(adapter), compact=compact, **facts)
        write_text(draft / CARD, card)
        _require_equal(adapter.modules, read(draft, "--output").modules)
        refused = check(read_files(draft, "--output"))
        if refused:
            raise InputFault(*(line.replace(str(draft), str(output)) for line in refused))


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that the copy takes over from the adapter's configuration."""
    return {
        "task_type": config.get("task_type") or "CAUSAL_LM",
        "base": config.get("base_model_name_or_path") or "",
        "dropout": config.get("lora_dropout") or 0.0,
    }


def _require_equal(ours: Mapping[str, Factors], theirs: Mapping[str, Factors]) -> None:
    """Compare A, and the scale times B, of every module of an adapter and its copy.

    Raises:
        RuntimeError: naming the first module that differs.
    """
    if set(ours) != set(theirs):
        raise RuntimeError("the copy has other modules")
    for module, one in ours.items():
        other = theirs[module]
        wanted, found = one.b * one.scale, other.b * other.scale
        difference = (wanted.float() - found.float()).abs().max()
        if not one.a.equal(other.a) or difference > _ROUNDING * wanted.float().abs().max():
            raise RuntimeError(f"{module}: the copy has another delta")
