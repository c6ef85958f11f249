"""Fuzzing of everything that reads a stranger's bytes: `make fuzz FUZZ_SECONDS=60`."""
