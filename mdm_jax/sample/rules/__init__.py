"""The rules by which samplers of an MDM choose the next tokens, one idea a file."""
