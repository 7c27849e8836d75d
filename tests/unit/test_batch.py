"""The folds of a batch: route and group of an alert are found once, by the policy that is in force."""

from app.decide.batch import Intents, fold
from tests.unit.builders import firing, policy, resolved

ACCURACY = policy({"name": "accuracy", "match": [], "group_by": ["model"]})
OTHER = policy({"name": "other", "match": [], "group_by": ["region"]})


def test_a_second_try_finds_the_routes_of_the_first() -> None:
    alerts, intents = [firing("a", model="churn"), firing("b", model="fraud")], Intents()
    first = fold(alerts, ACCURACY, intents)
    rest = fold(alerts[1:], ACCURACY, intents)
    assert rest[0].intent is first[1].intent
    assert [(each.intent.labels, each.positions) for each in first] == [
        ({"model": "churn"}, [0]),
        ({"model": "fraud"}, [1]),
    ]


def test_another_policy_finds_its_own_routes() -> None:
    alerts, intents = [firing("a", model="churn", region="eu")], Intents()
    found = [fold(alerts, chosen, intents)[0].intent for chosen in (ACCURACY, OTHER, ACCURACY)]
    assert [intent.route and intent.route.name for intent in found] == ["accuracy", "other", "accuracy"]
    assert [intent.labels for intent in found] == [{"model": "churn"}, {"region": "eu"}, {"model": "churn"}]


def test_equal_notifications_are_one_fold_until_another_comes_between() -> None:
    alerts = [firing("a"), firing("a"), firing("b"), firing("a"), resolved("a"), firing("a")]
    assert [each.positions for each in fold(alerts, ACCURACY)] == [[0, 1, 3], [2], [4], [5]]
