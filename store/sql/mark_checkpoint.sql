UPDATE runs SET checkpoint_at = ? WHERE num = ?
