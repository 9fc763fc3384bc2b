"""Bind the data set that a tool's flags and a run's TOML name, as a run would bind it."""

from types import SimpleNamespace

from configs.command_line.bound import Bound
from configs.command_line.config_file import read_options
from configs.runtime import kinds
from configs.runtime.faults import InputFault, unknown
from configs.schema.lookup import option_specs
from configs.schema.options import MIXTURE, Options
from configs.schema.settings import Layer, Setting
from configs.toml.reader import read_document

_NAMES = ("dataset", "dataset_dir", "task", "max_bad_rows", "offline", "seed")


def bound_for_tool(given: SimpleNamespace) -> Bound:
    """Return the command line of a run with the same data set: the TOML, overridden by the flags.

    Args:
        given: the flags of a tool with `--config` and some of `--dataset`, `--dataset-dir`, `--task`,
            `--max-bad-rows`, `--offline`, `--seed`; its `given` holds the names of those that were written.

    Raises:
        InputFault: for an unknown data set, and for every fault of the TOML.
    """
    layer = Layer()
    if given.config is not None:
        layer = read_options(read_document(given.config, "--config"), str(given.config))
    words = {name: getattr(given, name) for name in _NAMES if f"--{name.replace('_', '-')}" in given.given}
    layer.settings |= {name: Setting(value, "command line", f"--{name}") for name, value in words.items()}
    word = layer.settings["dataset"].value if "dataset" in layer.settings else ""
    known = [MIXTURE, *kinds.names(kinds.TASKS)]
    if word and word not in known:
        layer.faults.append(f"--dataset: {unknown('data set', word, known)}")
    if not word and given.config is not None:
        layer.faults.append(f"--dataset: required, '{given.config}' does not name one")
    if layer.faults:
        raise InputFault(*layer.faults)
    sources = dict.fromkeys(option_specs(), "default")
    sources |= {name: setting.source for name, setting in layer.settings.items()}
    options = Options(**{name: setting.value for name, setting in layer.settings.items()})
    return Bound("train", options, sources, layer.tables, dict.fromkeys(layer.tables, given.config), ())
