"""The two front doors, the app and the command line, and what the pages share."""
