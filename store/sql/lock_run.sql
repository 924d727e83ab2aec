SELECT final, parent, grp, tenant_id, account, kept_micros, charged, micros FROM runs WHERE num = ?
