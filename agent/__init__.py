"""deploy-agent: the on-host deployment agent."""

__version__ = "0.1.0"
