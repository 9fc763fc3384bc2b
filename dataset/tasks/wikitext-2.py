"""WikiText-2, the raw text; files of the form of tokens are read where only they are there."""

from dataset.suites.wikitext import wikitext_kind

TASK = wikitext_kind(
    "wikitext-2", folder="wikitext-2-raw", endings=("raw", "tokens"), hub="wikitext-2-raw-v1"
)
