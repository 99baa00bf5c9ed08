"""What papers share: rows and their rules, layer sizes, trainings in stages, stored results."""
