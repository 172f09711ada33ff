"""Tasks, models and training components; importing this package imports none of them."""
