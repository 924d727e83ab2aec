INSERT INTO contents (hash, tenant_id, sealed) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
