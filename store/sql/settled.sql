-- How far the journal may be followed: all of it, since its numbers are in the order of commit.
SELECT 9223372036854775807
