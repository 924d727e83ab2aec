SELECT t.term, t.memory, t.times, m.words
FROM memory_terms AS t JOIN memories AS m ON m.num = t.memory
WHERE t.term IN (SELECT value FROM json_each(:terms)) AND m.tenant_id = :tenant AND m.state = 'kept'
  AND (m.expires_at IS NULL OR m.expires_at > :at)
ORDER BY t.memory DESC
LIMIT :most
