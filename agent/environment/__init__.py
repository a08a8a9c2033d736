"""The environments of services: keys of Consul, what is kept of them, and their files."""
