"""Files as rows that know where they stand: parquet folders, JSON lines and CSV; errors name file, row and column."""
