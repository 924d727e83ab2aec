INSERT INTO buckets (scope, name, tokens, at) VALUES (?, ?, ?, ?)
ON CONFLICT (scope, name) DO UPDATE SET tokens = excluded.tokens, at = excluded.at
