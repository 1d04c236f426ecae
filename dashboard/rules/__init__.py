"""The rules in the sidebar: the stack as a list, what can be done with one, the library, warnings of interference."""
