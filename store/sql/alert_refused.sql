SELECT d.num, r.run_id, d.at FROM dead_letters d JOIN runs r ON r.num = d.run WHERE d.num > :after AND d.num <= :settled
ORDER BY d.num LIMIT :limit
