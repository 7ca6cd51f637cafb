"""The models that are served, their adapters and replicas."""
