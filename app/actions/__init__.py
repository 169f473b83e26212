"""Actions: what steps do. One file each, under the folder of its backend."""
