"""The page *Directions*: a module for each view and the tray, and what they share of choices and jobs."""
