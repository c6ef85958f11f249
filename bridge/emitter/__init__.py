"""The node's side of the feed: what a factomd node does to emit events, for any Python program."""
