"""The commands of `palimpsest`, one file each, and what they share.

A command declares its options with click alone and imports the engine when it runs, so that `--help` is quick. Its
answer goes to stdout (as JSON with `--json`), progress and warnings to stderr. What is wrong with what came from
outside is a `PalimpsestError` of one line, which `dashboard/cli.py` turns into exit status 1.
"""
