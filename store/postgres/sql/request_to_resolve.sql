SELECT q.num, q.run, q.kind, q.status, q.request_id, q.expires_at, r.tenant_id
FROM requests q JOIN runs r ON r.num = q.run
WHERE q.request_id LIKE :request_id || '%' OR q.request_id LIKE '%' || :request_id
FOR UPDATE OF r, q
