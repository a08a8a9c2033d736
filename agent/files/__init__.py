"""Planning, installing and putting back the files of a revision."""
