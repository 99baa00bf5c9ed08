"""Networks that others wrote, through zeroskip: `make zoo` writes docs/NETWORKS.md. No part of the package."""
