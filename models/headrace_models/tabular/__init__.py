"""Networks for tables of columns."""
