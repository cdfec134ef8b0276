"""What a run tells: `metrics` always (JSON lines), `console` for the eyes, `trackers` by name, `tokens` in colour."""
