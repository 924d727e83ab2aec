-- Counters of a job's rows; of a job with shards (runs of the group '0/retinue.batch#0'), those of all its shards.
WITH job (num, root) AS (SELECT num, coalesce(root, num) FROM runs WHERE run_id = :run_id),
holders (num) AS (
  SELECT num FROM job
  UNION ALL SELECT runs.num FROM runs
  WHERE runs.grp = (SELECT num FROM groups WHERE run = (SELECT num FROM job) AND key = '0/retinue.batch#0'))
SELECT CAST(sum(total) AS BIGINT), CAST(sum(pending) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(failed) AS BIGINT),
  CAST(sum(rejected) AS BIGINT), min(exhausted), CAST(sum(micros) AS BIGINT),
  (SELECT count(*) FROM requests JOIN runs r ON r.num = requests.run, job
   WHERE requests.status = 'open' AND (r.num = job.num OR r.root = job.root))
FROM groups WHERE key = :key AND run IN (SELECT num FROM holders) HAVING count(*) > 0
