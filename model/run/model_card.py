"""The model card of an adapter, README.md in its directory: what it is, for people and for hubs.

Source: the fields of huggingface_hub's model cards. The licence is left open: it is the author's to choose.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from huggingface_hub import EvalResult, ModelCardData

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TASKS = {
    "classification": ("text-classification", "AutoModelForSequenceClassification"),
    "causal_language_modeling": ("text-generation", "AutoModelForCausalLM"),
    "summarization": ("text-generation", "AutoModelForCausalLM"),
}
"""Value of `--task` -> the hub's word for it, and the class of transformers."""


@dataclass(frozen=True)
class Result:
    """What chose the best step.

    Args:
        metric: its name.
        value: the best value.
        step: the step that it was reached at.
    """

    metric: str
    value: float
    step: int


@dataclass(frozen=True)
class CardFacts:
    """What the card of an adapter states.

    Args:
        base: name or path of the frozen base; of a path the card has the last part only.
        task: the value of `--task`; None where it is not known.
        methods: kinds of adapter.
        dataset: name of the data set, or of each part of a mixture; None where it is not known.
        hubs: the repositories of the hub that hold it.
        classes: number of classes, or 1 for regression; 0 for a language model.
        result: what chose the best step; None without evaluation.
        template: the prompt template, if there is one.
        only_here: kinds of adapter that PEFT cannot represent.
    """

    base: str
    task: str | None
    methods: Collection[str]
    dataset: str | None = None
    hubs: Sequence[str] = ()
    classes: int = 0
    result: Result | None = None
    template: str | None = None
    only_here: Sequence[str] = ()


def model_card(facts: CardFacts) -> str:
    """Return the content of README.md."""
    lines = ["---", _metadata(facts), "---", "", "# Adapter", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in _rows(facts) if text]
    if facts.only_here:
        what = ", ".join(facts.only_here)
        lines += ["", f"PEFT cannot represent {what}: use `main test --adapter` or `tools.generate`."]
    else:
        lines += ["", *_sample(facts)]
    return "\n".join(lines) + "\n"


def _metadata(facts: CardFacts) -> str:
    """Return the card's YAML."""
    kind = _TASKS[facts.task][0] if facts.task else None
    is_named = _HUB_NAME.fullmatch(facts.base) is not None
    data = ModelCardData(
        base_model=facts.base if is_named else None,
        datasets=list(facts.hubs) or None,
        library_name=None if facts.only_here else "peft",
        pipeline_tag=kind,
        tags=sorted({"lora", *facts.methods}),
        model_name="adapter" if facts.result else None,
        eval_results=_results(facts, kind),
    )
    return data.to_yaml()


def _results(facts: CardFacts, kind: str | None) -> list[EvalResult] | None:
    if facts.result is None or facts.dataset is None or kind is None:
        return None
    split, _, metric = facts.result.metric.partition("/")
    return [
        EvalResult(
            task_type=kind,
            dataset_type=facts.hubs[0] if len(facts.hubs) == 1 else facts.dataset,
            dataset_name=facts.dataset,
            dataset_split={"val": "validation"}.get(split, split),
            metric_type=metric,
            metric_name=f"{facts.result.metric}, best step",
            metric_value=facts.result.value,
        )
    ]


def _rows(facts: CardFacts) -> list[tuple[str, str | None]]:
    """Return the lines of the card's table; those without a text are left out."""
    best = facts.result
    return [
        ("base", f"`{_short(facts.base)}`"),
        ("data set", facts.dataset),
        ("task", facts.task),
        ("method", ", ".join(sorted(facts.methods))),
        (best.metric, f"{best.value:.6g} at step {best.step}") if best else ("evaluation", "none"),
        ("prompt template", f"`{json.dumps(facts.template)}`" if facts.template else None),
        ("licence", "not stated"),
    ]


def _short(base: str) -> str:
    return base if _HUB_NAME.fullmatch(base) or ":" in base else PurePath(base).name


def _sample(facts: CardFacts) -> list[str]:
    """Return code that loads the adapter."""
    name = _TASKS[facts.task or "causal_language_modeling"][1]
    classes = f", num_labels={facts.classes}" if facts.classes else ""
    base = facts.base if _HUB_NAME.fullmatch(facts.base) else "path/to/base"
    return [
        "```python",
        "from peft import PeftModel",
        f"from transformers import {name}",
        "",
        f'base = {name}.from_pretrained("{base}"{classes})',
        'network = PeftModel.from_pretrained(base, "path/to/this/directory")',
        "```",
    ]
