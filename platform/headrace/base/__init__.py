"""What every layer may use: errors, home and paths, ids, clock, locks. Standard library only."""
