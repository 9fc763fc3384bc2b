"""One file for each quantized number format of frozen linears, with fewer bits than bfloat16."""
