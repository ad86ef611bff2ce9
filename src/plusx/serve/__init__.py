"""From a run to an HTTP service and a page."""
