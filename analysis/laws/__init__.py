"""Laws of loss against compute: interpolated, power laws, saturating power laws, and envelopes."""
