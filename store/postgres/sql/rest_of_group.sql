WITH RECURSIVE tree (num, level) AS (
  SELECT num, 0 FROM runs WHERE grp = ? AND status NOT IN ('completed', 'failed', 'canceled')
  UNION ALL SELECT runs.num, tree.level + 1 FROM runs JOIN tree ON runs.parent = tree.num),
locked AS MATERIALIZED (
  SELECT runs.num, run_id, tenant_id, epoch, position, status, tree.level FROM tree JOIN runs USING (num)
  WHERE status NOT IN ('completed', 'failed', 'canceled') ORDER BY runs.num FOR UPDATE OF runs)
SELECT num, run_id, tenant_id, epoch, position, status FROM locked ORDER BY level DESC, num
