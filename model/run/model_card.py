"""The model card of an adapter, README.md in its directory: what it is, for people and for hubs.

Source: the fields of huggingface_hub's model cards. The licence is left open: it is the author's to choose.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class CardFacts:
    """What the card of an adapter states.

    Args:
        base: name or path of the frozen base; of a path the card has the last part only.
        dataset: name of the data set, or of each part of a mixture.
        task: the value of `--task`.
        methods: kinds of adapter.
        metric: name of the metric that chose the best step.
        value: its value there; None without evaluation.
        step: the best step.
        template: the prompt template, if there is one.
        only_here: kinds of adapter that PEFT cannot represent.
    """

    base: str
    dataset: str
    task: str
    methods: Collection[str]
    metric: str
    value: float | None
    step: int
    template: str | None = None
    only_here: Sequence[str] = ()


def model_card(facts: CardFacts) -> str:
    """Return the content of README.md."""
    head = [] if facts.only_here else ["library_name: peft"]
    head += [f"base_model: {facts.base}"] if _HUB_NAME.fullmatch(facts.base) else []
    head += ["tags:", *(f"- {method}" for method in sorted({"lora", *facts.methods}))]
    base = facts.base if _HUB_NAME.fullmatch(facts.base) else PurePath(facts.base).name
    value = "not evaluated" if facts.value is None else f"{facts.value:.6g} at step {facts.step}"
    rows = [
        ("base", f"`{base}`"),
        ("data set", facts.dataset),
        ("task", facts.task),
        ("method", ", ".join(sorted(facts.methods))),
        (facts.metric, value),
        *([("prompt template", f"`{json.dumps(facts.template)}`")] if facts.template else []),
        ("licence", "not stated"),
    ]
    lines = ["---", *head, "---", "", "# Adapter", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in rows]
    if facts.only_here:
        what = ", ".join(facts.only_here)
        lines += ["", f"PEFT cannot represent {what}: use `main test --adapter` or `tools.generate`."]
    else:
        lines += [
            "",
            "```python",
            "from peft import PeftModel",
            "",
            "network = PeftModel.from_pretrained(base, DIR)",
        ]
        lines += ["```"]
    return "\n".join(lines) + "\n"
