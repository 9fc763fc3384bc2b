"""One file per number format of frozen linears that needs fewer bits than bfloat16."""
