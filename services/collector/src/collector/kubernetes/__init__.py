"""The API server of Kubernetes: what this node runs, and policies that are its resources."""
