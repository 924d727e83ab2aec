INSERT INTO journal (run, position, epoch, schema, facts, sealed) VALUES (?, ?, ?, ?, ?, ?)
