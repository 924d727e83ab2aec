SELECT seq, position, epoch, schema, facts, sealed FROM journal
WHERE run = :num AND (position = 1 OR position >= :since) ORDER BY position
