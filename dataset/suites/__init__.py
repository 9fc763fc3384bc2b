"""Floor 3: what the tasks of one suite share (GLUE, instructions, MMLU); imports `dataset.rows` and below."""
