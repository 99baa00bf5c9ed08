"""Convolutions: on tiles with zero weights skipped, or with zero inputs skipped."""
