"""The one way to the local Consul agent: python-consul on a transport of our own."""
