SELECT nextval('runs_num') FROM generate_series(1, :count)
