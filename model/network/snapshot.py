"""A source made a local directory: hub snapshots, and GGUF files converted once and kept by content."""

import contextlib
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from tokenizers import pre_tokenizers
from torch import float32
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase
from transformers.utils import logging as host_logging

from configs.runtime.faults import InputFault, SystemFault
from configs.runtime.files import sha256
from model.network.source import Source
from model.tensors.gguf_header import read_gguf_header

_LOG = logging.getLogger(__name__)
CACHE_VARIABLE = "LORA_RESEARCH_CACHE"
_CONVERSION = 1
"""Part of a cached directory's name; raise it when the conversion below changes."""
_SPLITTINGS_OF_THE_HOST = (None, "default", "gpt-2")
_DESCRIPTION = ["*.json", "*.txt", "*.model"]
_NESTED = ["*/*"]


def localised(source: Source, *, pretrained: bool = True) -> Source:
    """Return a source whose network lies in a local directory, fetched or converted where need be.

    Raises:
        InputFault: for a name the hub does not know, or does not hold locally when it must not be asked.
        SystemFault: when the hub cannot be reached or the cache cannot be written.
    """
    if source.kind == "hub":
        return replace(source, kind="directory", path=_fetched(source, pretrained))
    if source.kind == "gguf":
        return replace(source, kind="directory", path=_converted(source.path))
    return source


@contextlib.contextmanager
def quiet_host() -> Iterator[None]:
    """Silence the bars, warnings and advice of `transformers`; its errors still come as exceptions."""
    verbosity, bars = host_logging.get_verbosity(), host_logging.is_progress_bar_enabled()
    host_logging.set_verbosity_error()
    host_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        host_logging.set_verbosity(verbosity)
        if bars:
            host_logging.enable_progress_bar()


def _fetched(source: Source, pretrained: bool) -> Path:
    """Fetch description files and, if wanted, weights; pickle-based ones only where there are no others."""
    weights = ["*.safetensors"] if pretrained else []
    directory = _download(source, _DESCRIPTION + weights)
    if pretrained and not any(directory.glob("*.safetensors")):
        directory = _download(source, [*_DESCRIPTION, "pytorch_model*.bin"])
    return directory


def _download(source: Source, patterns: list[str]) -> Path:
    try:
        return Path(
            snapshot_download(
                source.word,
                allow_patterns=patterns,
                ignore_patterns=_NESTED,
                local_files_only=source.offline,
            )
        )
    except (RepositoryNotFoundError, HFValidationError):
        raise InputFault(f"{source.flag}: the hub has no model '{source.word}'") from None
    except LocalEntryNotFoundError:
        if source.offline or os.environ.get("HF_HUB_OFFLINE") == "1":
            what = f"'{source.word}' is not in the local cache, and the hub must not be asked"
            raise InputFault(f"{source.flag}: {what}") from None
        raise SystemFault(f"{source.flag}: the hub cannot be reached for '{source.word}'") from None
    except OSError as error:
        raise SystemFault(
            f"{source.flag}: '{source.word}' cannot be fetched ({type(error).__name__})"
        ) from None


def cache_root() -> Path:
    """Return the directory for what can be made again: `$LORA_RESEARCH_CACHE`, else in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora-research"


def _converted(path: Path) -> Path:
    """Return the directory of a GGUF file's unpacked network, made on first use.

    Two processes may convert at once: each writes a directory of its own, the first rename wins.
    """
    header = read_gguf_header(path)
    parent = cache_root() / "gguf"
    target = parent / f"{sha256(path)}-{_CONVERSION}"
    if target.is_dir():
        return target
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}."))
    except OSError as error:
        hint = f"set {CACHE_VARIABLE} to a directory that can be written"
        raise SystemFault(f"{parent}: cannot be written ({error.strerror}); {hint}") from None
    try:
        _convert(path, temporary, header.fields.get("tokenizer.ggml.pre"))
        _put_in_place(temporary, target)
    except OSError as error:
        raise SystemFault(f"{path}: cannot be converted into {parent} ({error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _convert(path: Path, directory: Path, splitting: str | None) -> None:
    """Unpack a GGUF file into float32 weights, configuration and tokenizer."""
    # The conversion draws its bar without asking the host's logging.
    with quiet_host(), contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        _restore_splitting(tokenizer, splitting)
        network = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        # The weights are plain by now; these marks would make the host refuse to save or to read them.
        network.hf_quantizer = None
        vars(network.config).pop("quantization_config", None)
        network.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _restore_splitting(tokenizer: PreTrainedTokenizerBase, splitting: str | None) -> None:
    """Split digits one by one where the file says so; the host's conversion leaves this field unread."""
    if splitting != "smollm":
        if splitting not in _SPLITTINGS_OF_THE_HOST:
            _LOG.warning(
                "GGUF token splitting '%s': taken from the host's conversion, not verified", splitting
            )
        return
    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _put_in_place(temporary: Path, target: Path) -> None:
    for path in temporary.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    try:
        temporary.rename(target)
    except OSError:
        # The other process may have been faster; then its directory serves as well.
        if not target.is_dir():
            raise
