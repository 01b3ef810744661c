"""Reports of live runs, and pages that compare them."""
