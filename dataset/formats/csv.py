"""CSV files of `local`."""

from dataset.readers import read_csv

READ = read_csv
