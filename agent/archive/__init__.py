"""Reading, packing and unpacking bundles, and checking unpacked releases."""
