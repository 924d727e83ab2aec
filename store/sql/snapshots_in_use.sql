SELECT r.tenant_id, u.snapshot_id FROM snapshot_uses u JOIN runs r ON r.num = u.run
WHERE r.tenant_id = :tenant AND (r.final IS NULL OR r.finished_at >= :since)
UNION
SELECT p.tenant_id, p.snapshot_id FROM snapshot_pins p WHERE p.tenant_id = :tenant
