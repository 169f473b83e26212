"""Facts that guards decide on."""
