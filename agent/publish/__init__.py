"""Bundles on their way: runs on CI and laptops, never in the daemon."""
