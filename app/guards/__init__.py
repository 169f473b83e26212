"""Guards: pure rules over stored facts, one file each, in the order of `chain`."""
