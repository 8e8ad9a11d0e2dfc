"""Data sets: from files and the Hub to items, on this machine, checked, with every exclusion counted."""
