"""The benchmark: the service beside what it is compared with. Run as `make bench`."""
