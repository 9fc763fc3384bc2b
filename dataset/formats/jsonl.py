"""JSONL files of `local`."""

from dataset.readers import read_jsonl

READ = read_jsonl
