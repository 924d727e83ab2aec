-- The newest number, the one up to which readers may follow, and who holds them back: nobody, since numbers are in the
-- order of commit.
SELECT coalesce(max(seq), 0), 9223372036854775807, 0, '' FROM journal
