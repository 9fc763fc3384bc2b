"""Row 14: a quarter of the modules on, spread over the network; what is off is skipped, not multiplied."""

from collections.abc import Callable
from random import Random

from torch import Tensor

from benchmarks.hosts import Host, add_lora, smollm2, step, trained
from benchmarks.measure import Report, compare, pin, ratios
from model.site import SiteKey

SHARE = 4


def switched(host: Host, on: set[SiteKey]) -> Callable[[], Tensor]:
    """Attach everywhere and switch off all but the chosen, as a search does; the optimiser holds all."""
    attachments = add_lora(host)
    for key, attachment in attachments.items():
        attachment.enabled = key in on
    return step(host, trained(host.network, attachments))


def _static(host: Host, on: set[SiteKey]) -> Callable[[], Tensor]:
    """Attach to the chosen alone, as a TOML that names them does."""
    return step(host, trained(host.network, add_lora(host, keys=on)))


def main() -> None:
    """Measure modules that are switched off against modules that were never attached."""
    pin()
    keys = sorted(smollm2().sites)
    chosen = set(Random(0).sample(keys, len(keys) // SHARE))
    times = compare({"switched": switched(smollm2(), chosen), "static": _static(smollm2(), chosen)})
    report = Report(
        "14", "SmolLM2-135M fp32 4x128, 25 % of the modules on, ratio to a static TOML of the same"
    )
    report.add("switched off / never attached", ratios(times, "switched", "static"), goal=1.02, peer="1.25")
    report.finish()


if __name__ == "__main__":
    main()
