SELECT groups.key, groups.total, groups.pending, groups.ok, groups.failed, groups.rejected, r.status, count(r.num)
FROM groups LEFT JOIN runs r ON groups.pending > 0 AND r.grp = groups.num AND r.final IS NULL
WHERE groups.run = (SELECT num FROM runs WHERE run_id = :run_id)
GROUP BY groups.num, r.status ORDER BY groups.num
