SELECT key, request_id, status, resolved_by, resolved_at, answer FROM requests WHERE run = ? AND status != 'open'
