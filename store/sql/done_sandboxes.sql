SELECT s.sandbox_id, s.closed_at IS NOT NULL OR r.final IS NOT NULL OR s.node != :node
FROM sandboxes s JOIN runs r ON r.num = s.run
WHERE s.sandbox_id IN (SELECT value FROM json_each(:ids))
