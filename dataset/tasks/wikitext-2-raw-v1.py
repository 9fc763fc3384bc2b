"""WikiText-2, the raw text alone, by the hub's word for it."""

from dataset.suites.wikitext import wikitext_kind

TASK = wikitext_kind("wikitext-2-raw-v1", folder="wikitext-2-raw", endings=("raw",), hub="wikitext-2-raw-v1")
