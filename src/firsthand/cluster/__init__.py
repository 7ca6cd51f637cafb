"""Several processes and machines: runs spread over workers, and models served by replicas."""
