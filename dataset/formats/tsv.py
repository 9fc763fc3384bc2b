"""TSV files of `local`."""

from dataset.readers import read_tsv

READ = read_tsv
