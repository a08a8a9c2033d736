"""From text to model: YAML with places, JSON Schema, appspec, configuration."""
