"""Every rule, by the instances and near misses it draws itself."""

from random import Random

import pytest

from fusewright.ir import graph as g
from fusewright.rewrite import RULES, Rule
from fusewright.rewrite.samples import Draw
from rules.support import assert_equal_values, measure, simplified

FEW = 25
MANY = 200


def names(rule: Rule) -> str:
    return rule.name


def fires(rule: Rule, node: g.Node) -> tuple[tuple[g.Node, ...], bool]:
    """The node rewritten by `rule` alone if that pays, else by all rules; whether it fired."""
    after, records = simplified(node, rules=(rule,))
    if not records:
        after, records = simplified(node)
    return after, any(r.rule == rule.name for r in records)


def check_instance(rule: Rule, seed: int) -> None:
    node = rule.instances(Draw(Random(seed)))
    after, fired = fires(rule, node)
    assert fired, f"{rule.name} did not fire on its instance {seed}"
    assert measure(*after) < measure(node)
    assert_equal_values((node,), after, seed)
    final, _ = simplified(node)
    assert_equal_values((node,), final, seed)
    again, records = simplified(*final)
    assert again == final and not records


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_rule(rule: Rule) -> None:
    for seed in range(FEW):
        check_instance(rule, seed)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=names)
def test_rule_at_length(rule: Rule) -> None:
    for seed in range(FEW, MANY):
        check_instance(rule, seed)


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_near_misses(rule: Rule) -> None:
    for seed in range(FEW):
        for node in rule.near_misses(Draw(Random(seed))):
            _, fired = fires(rule, node)
            assert not fired, f"{rule.name} fired on a near miss"
            after, _ = simplified(node)
            assert_equal_values((node,), after, seed)


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_every_rule_has_near_misses(rule: Rule) -> None:
    assert next(rule.near_misses(Draw(Random(0))), None) is not None


def test_names_are_unique() -> None:
    assert len({r.name for r in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_numerics_option_excludes(rule: Rule) -> None:
    if rule.numerics == "exact":
        return
    stricter = "exact" if rule.numerics == "reassociate" else "reassociate"
    node = rule.instances(Draw(Random(0)))
    _, records = simplified(node, numerics=stricter)
    assert all(r.rule != rule.name for r in records)
