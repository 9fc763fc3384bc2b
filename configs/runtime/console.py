"""The one line-writer: every process prints through it, control characters come out escaped."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from configs.runtime import launcher
from configs.runtime.faults import Fault, InputFault, SystemFault, is_lost_process

_LIBRARIES = ("lightning", "lightning.pytorch", "lightning.fabric")
_QUIET = ("bitsandbytes", "matplotlib")
"""They warn of a kernel that could be downloaded from a hub, and of the place or making of a font cache."""
_MOST_FAULTS = 100
_OURS = ("__main__", "configs", "dataset", "main", "model", "tools")
"""First part of the names of this program's loggers."""


def rank() -> int:
    """Return this process's number among the run's, from what launchers set; the first one writes files."""
    return launcher.rank(os.environ)


def prepare_process() -> None:
    """Give standard streams that the parent closed the null device, and set matplotlib's backend.

    Otherwise the next files that are opened would get the streams' numbers, and lines of a library would be
    written into them; and torchmetrics, which imports matplotlib, would fail for a backend of a notebook.
    """
    os.environ["MPLBACKEND"] = "agg"
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def escaped(text: str) -> str:
    """Show control characters, line ends, direction marks and undecodable bytes by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """Print lines on rank 0; other ranks print nothing."""
    if rank() == 0:
        for line in text.split("\n"):
            _write(sys.stdout, escaped(line))


def fault(line: str) -> None:
    """Print one `error: ` line to stderr, with the rank in it above rank 0."""
    number = rank()
    speaker = f"rank {number}: " if number else ""
    _write(sys.stderr, f"error: {speaker}{escaped(line)}")


def report(error: BaseException) -> int:
    """Print the error that ended the program and return its exit code; only a bug shows a traceback."""
    if isinstance(error, Fault):
        for line in error.lines[:_MOST_FAULTS]:
            fault(line)
        if len(error.lines) > _MOST_FAULTS:
            fault(f"{len(error.lines) - _MOST_FAULTS:,} more")
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        fault(f"{escaped(str(error.filename))[:100]}...: the name is too long for the file system")
        return InputFault.exit_code
    if isinstance(error, (OSError, MemoryError)):
        fault(f"{getattr(error, 'filename', None) or 'memory'}: {error}")
        return SystemFault.exit_code
    if isinstance(error, KeyboardInterrupt):
        fault("stopped by signal 2")
        return 130
    if is_lost_process(error):
        fault(f"another process of the run has ended: {str(error).splitlines()[0]}")
        return SystemFault.exit_code
    if rank():
        fault(f"{type(error).__name__}: {error}")
    traceback.print_exception(error)
    return Fault.exit_code


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on rank 0: with lines on a terminal, as aligned plain text elsewhere."""
    if rank() != 0:
        return
    cells = [[escaped(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(title, columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    _write(sys.stdout, escaped(title))
    for row in [columns, *cells]:
        _write(sys.stdout, "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def progress(items: Sequence[Any], what: str) -> Iterator[Any]:
    """Yield the items while a progress bar with the remaining time is drawn on stderr."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=escaped(what), console=Console(stderr=True), transient=True)


def configure_logging(level: str) -> None:
    """Send log messages of at least `level` to stderr, one line each; ranks above 0 log only errors.

    Args:
        level: a value of `--log-level`.
    """
    least = getattr(logging, level.upper())
    if rank() != 0:
        least = max(least, logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    if level != "debug":
        handler.addFilter(_is_wanted)
    root.handlers[:] = [handler]
    root.setLevel(least)
    for name in _LIBRARIES:
        logging.getLogger(name).handlers[:] = []
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Keep what libraries say out (requests made, devices found, tips), but for warnings and errors."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


class _OneLine(logging.Formatter):
    """Formats a record, including a traceback, as escaped lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text; only a traceback keeps its line ends."""
        text = super().format(record)
        if record.exc_info:
            return "\n".join(map(escaped, text.split("\n")))
        return escaped(text)


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:  # whoever read the lines has gone, as `head` does; the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _draw(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawing = Table(title=Text(escaped(title)), title_justify="left")
    for column in columns:
        drawing.add_column(Text(column), overflow="fold")
    for row in cells:
        drawing.add_row(*map(Text, row))
    Console().print(drawing)


def is_quiet() -> bool:
    """Return whether nobody watches progress: no terminal, or not the first process."""
    return not sys.stderr.isatty() or rank() != 0 or os.environ.get("TERM") == "dumb"
