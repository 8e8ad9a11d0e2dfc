"""Results for people and programs: tables, Markdown, JSON. Reads scores, and needs no engine."""
