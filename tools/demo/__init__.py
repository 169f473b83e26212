"""The demo: trouble on real servers, and the service that ends it. Run as `make demo`."""
