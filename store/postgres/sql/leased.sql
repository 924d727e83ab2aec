-- Waits for the end of the transaction that has leased it.
SELECT 1 FROM runs WHERE num = ? AND epoch = ? AND status = 'in_progress' FOR UPDATE
