SELECT d.num, CASE WHEN r.target = 'retinue.batch' THEN coalesce(r.job_id, r.run_id) ELSE r.run_id END, d.at
FROM dead_letters d JOIN runs r ON r.num = d.run WHERE d.num > :after AND d.num <= :settled
ORDER BY d.num LIMIT :limit
