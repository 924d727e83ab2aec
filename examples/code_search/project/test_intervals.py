"""What spans have to do."""

import unittest

from intervals import merge


class Merging(unittest.TestCase):
    def test_nothing_is_nothing(self):
        self.assertEqual(merge([]), [])

    def test_what_is_apart_stays_apart(self):
        self.assertEqual(merge([(1, 2), (4, 5)]), [(1, 2), (4, 5)])

    def test_what_overlaps_is_joined(self):
        self.assertEqual(merge([(1, 3), (2, 5)]), [(1, 5)])

    def test_what_touches_is_joined(self):
        self.assertEqual(merge([(1, 2), (2, 3)]), [(1, 3)])

    def test_what_lies_within_changes_nothing(self):
        self.assertEqual(merge([(1, 9), (2, 3)]), [(1, 9)])

    def test_order_does_not_matter(self):
        self.assertEqual(merge([(4, 6), (1, 5)]), [(1, 6)])

    def test_the_input_is_left_as_it_was(self):
        spans = [(4, 6), (1, 5)]
        merge(spans)
        self.assertEqual(spans, [(4, 6), (1, 5)])

    def test_many_become_one(self):
        self.assertEqual(merge([(n, n + 1) for n in range(9, -1, -1)]), [(0, 10)])


if __name__ == "__main__":
    unittest.main()
