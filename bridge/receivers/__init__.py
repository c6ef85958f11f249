"""Where the feed comes in: one shell per transport. They hand runs over and wait for nothing."""
