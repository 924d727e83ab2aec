INSERT INTO journal (run, position, epoch, schema, facts, sealed)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[])
