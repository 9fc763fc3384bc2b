"""CSV files of `local`."""

from dataset.rows.readers import read_csv

READ = read_csv
