"""Row 22: a decision of dynamic reallocation against training steps of a quarter of the modules."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.hosts import Host, add_lora, opt_256, trained
from benchmarks.measure import Report, compare, pin, ratios
from benchmarks.scoring import Batch, add_shortcuts, batches_like, scoring, training
from configs.runtime.seeds import draws
from model.injection.attachment import Attachment
from model.search.budget import Budget
from model.site import SiteKey

BATCHES = 32
SHARE = 0.25
_Modules = Mapping[SiteKey, Attachment]


def _decision(host: Host, modules: _Modules, batches: Sequence[Batch]) -> Callable[[], None]:
    """Return what a run does at a decision: all modules on, scored, the best quarter stays on."""
    sizes = {key: sum(p.numel() for p in one.adapter.parameters()) for key, one in modules.items()}
    budget = Budget(sizes, SHARE, "combined", None)
    measured = scoring(host, "grad_norm", modules, batches)

    def run() -> None:
        for attachment in modules.values():
            attachment.enabled = True
        on = budget.choose(dict(measured()), draws(0, "ties", 0))
        for key, attachment in modules.items():
            attachment.enabled = key in on

    return run


def main() -> None:
    """Measure on one network whose quarter stays on between decisions."""
    pin()
    host = opt_256()
    modules = {**add_lora(host), **add_shortcuts(host)}
    batches = batches_like(host, BATCHES)
    decision = _decision(host, modules, batches)
    decision()
    # The optimiser holds all modules, as in a run.
    times = compare(
        {"decision": decision, "training": training(host, trained(host.network, modules), batches)}
    )
    report = Report("22", "OPT-256 4x64, LoRA and shortcuts, grad_norm, fp32")
    report.add(f"a decision of {BATCHES} batches / {BATCHES} steps", ratios(times, "decision", "training"))
    report.finish()


if __name__ == "__main__":
    main()
