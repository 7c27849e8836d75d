"""`trigger-gateway doctor`: looks from outside for the usual mistakes of the first day, and says how to mend each.

- finding.py: one line of the answer.
- routing.py: the receivers that Alertmanager's routes lead to. Pure.
- alertmanager.py: Alertmanager's configuration, held against the policy. Pure.
- airflow.py: one Airflow, and the DAGs that the policy names there.
- servers.py: Postgres and Redis.
- house.py: the policy, its values, the tokens, the gateway itself.
- examine.py: everything, in an order in which a cause stands before its effects.
- report.py: how the answer is shown.
"""
