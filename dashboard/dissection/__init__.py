"""The page *Dissection*: a module for each view, and what they share of a visitor's choices and jobs."""
