"""Between deployments: what Consul and people ask of the committed revisions meanwhile."""
