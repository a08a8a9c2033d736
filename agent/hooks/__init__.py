"""Running the hooks of a revision."""
