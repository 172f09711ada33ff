"""The one pipeline: its components, its compiled form, and the runner that runs it on a laptop."""
