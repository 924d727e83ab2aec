INSERT OR IGNORE INTO contents (hash, tenant_id, sealed) VALUES (?, ?, ?)
