INSERT INTO requests (request_id, run, kind, key, facts, sealed, created_at, assignee, expires_at, escalated_at, status)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, key) DO UPDATE SET status = excluded.status, assignee = excluded.assignee,
  escalated_at = excluded.escalated_at,
  resolved_at = CASE excluded.status WHEN 'expired' THEN excluded.expires_at END
WHERE requests.status = 'open'
