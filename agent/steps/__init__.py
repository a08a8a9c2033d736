"""What is done to the host: one file each, do() and undo() side by side."""
