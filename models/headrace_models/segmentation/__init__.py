"""Networks that say something of every pixel."""
