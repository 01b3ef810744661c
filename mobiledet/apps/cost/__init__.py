"""Cost reports: tables, charts and the paper's figures."""
