"""What the command line refuses, reads from earlier versions, and never executes; sweeps."""
