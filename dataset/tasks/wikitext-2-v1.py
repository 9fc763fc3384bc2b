"""WikiText-2 in the form of tokens, with `<unk>` for rare words, by the hub's word for it."""

from dataset.suites.wikitext import wikitext_kind

TASK = wikitext_kind("wikitext-2-v1", folder="wikitext-2", endings=("tokens",), hub="wikitext-2-v1")
