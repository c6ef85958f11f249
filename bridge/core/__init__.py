"""The pure core: no I/O, no clock, no randomness. Time comes in as an argument."""
