SELECT newest, readable, coalesce(pid, 0), coalesce(who, '')
FROM (SELECT (SELECT coalesce(max(seq), 0) FROM journal) AS newest, settled() AS readable) AS ends
LEFT JOIN LATERAL (SELECT l.pid, concat_ws(' ', a.application_name, host(a.client_addr), a.state) AS who
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::bigint BETWEEN 1073741824 AND 2147483647
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  ORDER BY l.classid::bigint, l.objid::bigint LIMIT 1) AS holder ON true
