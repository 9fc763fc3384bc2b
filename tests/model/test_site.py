"""The order of sites, and the names that files give their roles."""

import pytest

from model.site import EARLIER_NAMES, LINEAR_ROLES, SHORTCUT_ROLES, SiteKey, role_named


def test_sites_sort_by_layer_then_in_the_order_of_the_role_table():
    keys = [SiteKey(layer, role) for layer in (2, 10) for role in LINEAR_ROLES + SHORTCUT_ROLES]
    assert sorted(reversed(keys)) == keys


def test_roles_and_earlier_names_are_read():
    for role in LINEAR_ROLES + SHORTCUT_ROLES:
        assert role_named(role) == role
    assert set(EARLIER_NAMES) & {*LINEAR_ROLES, *SHORTCUT_ROLES} == set()
    assert (role_named("fc2"), role_named("down_proj"), role_named("gate_proj")) == ("w2", "w2", "gate")
    assert [role_named(name) for name in ("residual_1", "residual_2", "shortcut_sa", "shortcut_ffn")] == [
        *SHORTCUT_ROLES
    ]


def test_another_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"^no module 'qproj', one of .*; did you mean 'q_proj'\?$"):
        role_named("qproj")
