"""Local directories of sources: snapshots of the hub, and GGUF files converted once and cached by content."""

import contextlib
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tokenizers import pre_tokenizers
from torch import float32
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from configs.runtime import hub
from configs.runtime.faults import InputFault, SystemFault
from configs.runtime.files import sha256
from model.network.generation_settings import plain_settings, write_settings
from model.network.source import HubSource, LocalSource, Source
from model.tensors.gguf_header import read_gguf_header

_LOG = logging.getLogger(__name__)
CACHE_VARIABLE = "LORA_RESEARCH_CACHE"
_CONVERSION = 1
"""Part of a cached directory's name; raise it when the conversion below changes."""
_KNOWN_SPLITTINGS = (None, "default", "gpt-2")
_DESCRIPTION = ["*.json", "*.txt", "*.model"]
_NESTED = ["*/*"]
hub.route_messages()


def local_copy(source: Source, *, pretrained: bool = True) -> LocalSource:
    """Return a source in a local directory: downloaded from the hub, or converted from GGUF, where necessary.

    Args:
        source: where the network comes from.
        pretrained: whether the weights are needed.

    Raises:
        InputFault: for a name unknown to the hub, or not cached when the hub may not be accessed.
        SystemFault: when the hub cannot be reached or the cache cannot be written.
    """
    if source.kind == "hub":
        return LocalSource(source.word, source.flag, _download(source, pretrained), "directory")
    if source.kind == "gguf":
        return LocalSource(source.word, source.flag, _converted(source.path), "directory")
    return source


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and warnings of `transformers`; errors are still raised as exceptions."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def save_network(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    settings: Mapping[str, Any] | None,
    directory: Path,
) -> None:
    """Write a network with its tokenizer and the generation_config.json of its base.

    Args:
        network: a network with `plain_settings`.
        tokenizer: its tokenizer, if it has one.
        settings: the base's, written as they are; None: the plain ones.
        directory: where the files go.
    """
    with quiet_transformers():  # its bar counts the files, of which there are few
        network.save_pretrained(directory)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)
    if settings is not None:
        write_settings(settings, directory)


def _download(source: HubSource, pretrained: bool) -> Path:
    """Download configuration, tokenizer and, if needed, weights; pickle-based ones as a last resort."""
    weights = ["*.safetensors"] if pretrained else []
    directory = _download_files(source, _DESCRIPTION + weights)
    if pretrained and not any(directory.glob("*.safetensors")):
        directory = _download_files(source, [*_DESCRIPTION, "pytorch_model*.bin"])
    return directory


def _download_files(source: HubSource, patterns: list[str]) -> Path:
    silence = None if source.offline else hub.silence()
    try:
        directory = snapshot_download(
            source.word,
            allow_patterns=patterns,
            ignore_patterns=_NESTED,
            local_files_only=source.offline or silence is not None,
        )
    except GatedRepoError:
        what = f"'{source.word}' is gated: accept its terms on the hub, and log in with `hf auth login`"
        raise InputFault(f"{source.flag}: {what}") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise InputFault(f"{source.flag}: the hub has no model '{source.word}'") from None
    except LocalEntryNotFoundError as error:
        if source.offline or os.environ.get("HF_HUB_OFFLINE") == "1":
            what = f"'{source.word}' is not in the local cache, and the hub may not be accessed"
            raise InputFault(f"{source.flag}: {what}") from None
        reason = silence or _first_line(error.__cause__ or error)
        raise SystemFault(
            f"{source.flag}: the hub cannot be reached for '{source.word}' ({reason})"
        ) from None
    except OSError as error:
        what = f"'{source.word}' cannot be downloaded ({_first_line(error)})"
        raise SystemFault(f"{source.flag}: {what}") from None
    if silence is not None:
        hub.note_cached(silence)
    return Path(directory)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def cache_root() -> Path:
    """Return the cache directory: `$LORA_RESEARCH_CACHE`, or a directory in the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora-research"


def _converted(path: Path) -> Path:
    """Return the directory with the network of a GGUF file, converted on first use.

    Two processes may convert at once: each writes its own directory, and the first rename wins.
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
        hint = f"set {CACHE_VARIABLE} to a writable directory"
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
    # The conversion shows a progress bar whatever the logging settings of transformers.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
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
        # The weights are dequantized; with these marks transformers would refuse to save or to load them.
        vars(network).update(hf_quantizer=None)
        vars(network.config).pop("quantization_config", None)
        plain_settings(network)
        network.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _restore_splitting(tokenizer: PreTrainedTokenizerBase, splitting: str | None) -> None:
    """Split digits one by one where the file asks for it, as the conversion by transformers does not."""
    if splitting != "smollm":
        if splitting not in _KNOWN_SPLITTINGS:
            _LOG.warning(
                "GGUF pre-tokenizer '%s': the conversion by transformers is used unverified", splitting
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
        # Another process may have been faster; then its directory is as good.
        if not target.is_dir():
            raise
