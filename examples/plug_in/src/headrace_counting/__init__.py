"""Counts the dots in pictures: a task and a model that Headrace finds by entry point."""
