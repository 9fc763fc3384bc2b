"""JSONL files of `local`."""

from dataset.rows.readers import read_jsonl

READ = read_jsonl
