"""`metadata.json` of an adapter that this program wrote; a file of that name from another tool is none."""

import json
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.runtime.files import read_regular

FILE = "metadata.json"
TENSORS = "adapter_model.safetensors"


def own_record(adapter: Path) -> dict[str, Any]:
    """Return the content of an adapter's metadata.json; empty where there is none that this program wrote.

    What this program writes contains the digest of the tensor file, so that an edited file is still checked.

    Args:
        adapter: the directory.

    Raises:
        InputFault: when the file is not valid JSON.
    """
    try:
        table = json.loads(read_regular(adapter / FILE))
    except OSError:
        return {}
    except (ValueError, RecursionError) as error:
        raise InputFault(f"{adapter / FILE}: is not valid JSON ({error})") from None
    digests = table.get("sha256") if isinstance(table, dict) else None
    return table if isinstance(digests, dict) and TENSORS in digests else {}
