"""Where revisions come from: one file each."""
