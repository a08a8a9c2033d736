"""What things are: frozen dataclasses, enums and schemas. No I/O."""
