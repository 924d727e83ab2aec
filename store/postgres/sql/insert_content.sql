INSERT INTO contents (hash, tenant_id, sealed)
SELECT DISTINCT ON (hash) hash, tenant_id, sealed
FROM unnest(?::bytea[], ?::text[], ?::bytea[]) AS w (hash, tenant_id, sealed) ORDER BY hash
ON CONFLICT DO NOTHING
