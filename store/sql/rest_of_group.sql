WITH RECURSIVE tree (num, level) AS (
  SELECT num, 0 FROM runs WHERE grp = ? AND status NOT IN ('completed', 'failed', 'canceled')
  UNION ALL SELECT runs.num, tree.level + 1 FROM runs JOIN tree ON runs.parent = tree.num)
SELECT runs.num, run_id, tenant_id, epoch, position, status FROM tree CROSS JOIN runs USING (num)
WHERE status NOT IN ('completed', 'failed', 'canceled') ORDER BY tree.level DESC, num
