"""How host and network are touched: one third-party library per file."""
