"""A revision's services in Consul: registered, out of traffic and back, put back as they were."""
