"""Whole runs from the command line to the run directory, in folders by subject."""
