"""The number formats of `--base-dtype` that need an optional package."""

from importlib.util import find_spec

from configs.schema.options import QUANTIZED_DTYPES

QUANTIZER_PACKAGE = "bitsandbytes"
"""The package that encodes and decodes for every quantizer; its version may decide the codes."""


def quantizer_faults(word: str, where: str) -> list[str]:
    """Return a line where a number format of the base needs a package that is not installed.

    Args:
        word: of `--base-dtype`.
        where: what the line begins with.
    """
    if word not in QUANTIZED_DTYPES or find_spec(QUANTIZER_PACKAGE) is not None:
        return []
    advice = f"it comes with `pip install {QUANTIZER_PACKAGE}`"
    return [f"{where}: '{word}' needs the package {QUANTIZER_PACKAGE}; {advice}"]
