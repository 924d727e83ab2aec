-- Whoever looks whether a run has ended, to settle with it or beside it, waits for who is about to end it.
SELECT final, parent, grp, tenant_id, account, kept_micros, charged, micros FROM runs WHERE num = ?
FOR NO KEY UPDATE
