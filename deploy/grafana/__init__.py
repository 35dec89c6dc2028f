"""The dashboard: its panels, its JSON, and a drawing of it."""
