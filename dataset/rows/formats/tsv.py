"""TSV files of `local`."""

from dataset.rows.readers import read_tsv

READ = read_tsv
