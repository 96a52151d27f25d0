"""Quality of generated texts against their cost: texts, their nats under a reference, metrics with errors, a table."""
