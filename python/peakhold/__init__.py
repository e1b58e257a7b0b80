"""Model Monitoring sinks for high-FPS vision pipelines, on a Rust core."""
