"""`trigger-gateway doctor`: what a first-day user gets wrong, found from outside and told with how to mend it.

finding.py       one line of the answer
routing.py       where Alertmanager's routes lead to (pure)
alertmanager.py  Alertmanager's configuration against the policy (pure)
airflow.py       one Airflow, and the DAGs that the policy names there
servers.py       Postgres and Redis
house.py         the policy, its values, the tokens, the gateway itself
examine.py       all of it, in an order in which a cause stands before what it causes
report.py        how it is shown
"""
