"""The command line: parses, calls and renders. What commands do is done elsewhere; what they print is decided here.

`main` holds the commands' names, options and help; each body is a few lines that import what they need when they run,
so that `headrace --help` stays quick and the base install suffices for what it can do.
"""
