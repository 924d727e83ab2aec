DELETE FROM snapshot_uses WHERE run IN (
  SELECT DISTINCT u.run FROM snapshot_uses u JOIN runs r ON r.num = u.run
  WHERE r.final IS NOT NULL AND r.finished_at < :since LIMIT :most
)
