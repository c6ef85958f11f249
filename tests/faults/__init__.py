"""The fault suite: real processes and real brokers are killed, cut, paused, filled and damaged.

`make faults` runs all of it and prints a table; `test_quick.py` runs a little of each with the
other tests. A seed gives the same schedule again.
"""
