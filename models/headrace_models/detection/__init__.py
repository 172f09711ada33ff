"""Networks that find objects in pictures, and what they share."""
