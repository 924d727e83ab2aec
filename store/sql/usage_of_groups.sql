SELECT steps, hops, input_tokens, output_tokens, micros FROM groups WHERE run = ?
