"""Mutants: the code broken by hand, one promise at a time; each must turn a test red."""
