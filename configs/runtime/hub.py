"""Whether the Hugging Face hub answers: asked once, within a time limit; imported where it is needed."""

import functools
import logging

from huggingface_hub import constants, get_session

_LOG = logging.getLogger(__name__)
_SECONDS = 10
_LIBRARIES = ("huggingface_hub", "datasets")


@functools.cache
def silence() -> str | None:
    """Return why the hub does not answer, on one line; None when it does, whatever its answer is.

    The libraries that download ask five times before they give up, or wait without a limit; they find what
    is in their cache as well when they are told beforehand not to ask.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    # Its HTTP library differs between releases, and so do the classes of its errors.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        return f"{constants.ENDPOINT}: {reason}"
    return None


@functools.cache
def note_cached(silence: str) -> None:
    """Log once that the hub's cache was used because the hub did not answer."""
    _LOG.warning("the hub is not reached (%s); its cache is used", silence)


def route_messages() -> None:
    """Leave the messages of the hub's libraries to this program's handler; each would print them again."""
    for name in _LIBRARIES:
        logging.getLogger(name).handlers[:] = []
