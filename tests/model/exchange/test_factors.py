"""Padding changes no product and is cut off again."""

import torch

from model.exchange.factors import Factors, padded, with_own_ranks


def test_padding_changes_no_product_and_is_cut_off_again():
    factors = Factors(torch.randn(2, 6), torch.randn(5, 2), 0.5)
    wide = padded(factors, 7)
    assert (tuple(wide.a.shape), tuple(wide.b.shape), wide.scale) == ((7, 6), (5, 7), 0.5)
    torch.testing.assert_close(wide.b @ wide.a, factors.b @ factors.a)
    again = with_own_ranks({"x": wide}, {"x": 2}, "here")["x"]
    assert again.a.equal(factors.a)
    assert again.b.equal(factors.b)
    assert with_own_ranks({"x": wide}, {}, "here")["x"].rank == 7
