"""The stages: read past a checkpoint, pure function, effect, move the checkpoint.

`intake` fills the journal; `track` and `publish` follow it. Stages know ports, never a shell.
"""
