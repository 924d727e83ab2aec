-- Who deals under limits has counted what others have taken: the transaction has the only pen.
SELECT 1
