"""Stores of bundles over the network, S3 and web servers, and EC2's metadata service."""
