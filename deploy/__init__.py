"""What runs around the server: Prometheus' rules, and Grafana's dashboard as code."""
