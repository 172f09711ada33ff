"""What each of the four steps does, its cache key and its plan."""
