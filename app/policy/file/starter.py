"""The texts of `trigger-gateway init`: a policy to edit and an Alertmanager receiver to paste."""

from typing import Final

#: The file beside the policy from which editors know every key. The first line of the policy leads them to it.
SCHEMA_FILE: Final = "trigger-gateway.schema.json"

STARTER_POLICY: Final = (
    f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
    + """\
# The policy of the trigger gateway: which alerts start which DAG, and how often.
# Check it after every change:   trigger-gateway check policy.yaml
version: 1

airflow:
  - name: default
    url: http://127.0.0.1:8080
    # ${NAME} is read from the environment when the gateway starts. A token works as well:
    # auth: {token: "${AIRFLOW_TOKEN}"}   or   auth: {token_file: /run/secrets/airflow}
    auth: {username: "${AIRFLOW_USERNAME}", password: "${AIRFLOW_PASSWORD}"}
    # max_parallel: 4             # how many of our DAG runs may be open at once

# Where notices go when a retraining cannot start, does not end or fails. Try it:   trigger-gateway receivers test oncall
# receivers:
#   - {name: oncall, pagerduty: {routing_key: "${PAGERDUTY_ROUTING_KEY}"}}   # or opsgenie, slack, webhook, alertmanager

# What a route may leave out, with the values it then has. Uncomment to change them for all routes.
# defaults:
#   debounce: 0s                  # wait so long before a run; nothing starts if the alerts resolve meanwhile
#   cooldown: 24h                 # at most one DAG run per group in this time, rolling
#   refire: true                  # an alert that still fires after its cooldown may start another run
#   on_failure: release           # or keep: a failed run leaves the cooldown in force
#   failure_backoff: 30m          # after a failure wait so long, and twice as long after the next
#   run_timeout: 24h              # a run still open after this counts as lost
#   stale_after: 6h               # an alert that is not repeated for so long no longer fires

routes:                           # the first route that matches takes the alert
  - name: accuracy
    match: ['alertname="ModelAccuracyLow"', 'severity=~"critical|warning"']
    group_by: [model]             # one cooldown, and one DAG run, for each model
    debounce: 10m
    cooldown: 24h
    limit: {triggers: 100, per: 1d}   # of the whole route: labels come from whoever may send alerts
    dag:
      id: retrain_model
      conf: {model: "{{group.model}}"}
"""
)

_RECEIVER: Final = """\
# Paste into alertmanager.yml: the route under `route.routes`, the receiver under `receivers`.
route:
  routes:
    - receiver: trigger-gateway
      matchers: ['alertname="ModelAccuracyLow"']
      group_by: [alertname, model]
      continue: true               # people still get the alert as before
receivers:
  - name: trigger-gateway
    webhook_configs:
      - url: __URL__
        send_resolved: true        # the end of an alert cancels a run that is still held
        max_alerts: 0              # never leave alerts out of a notification
        http_config:               # leave it out while the gateway runs on this machine without tokens
          authorization:
            type: Bearer
            credentials_file: /etc/alertmanager/trigger-gateway.token
"""

#: Stands for a name that only the user knows: the gateway serves on every address of its machine.
THIS_MACHINE: Final = "THIS-MACHINE"


def alertmanager_receiver(gateway_url: str) -> str:
    """The YAML to paste into alertmanager.yml, for the gateway at `gateway_url` (scheme, host and port). With THIS_MACHINE
    for the host, a comment says what to fill in.

    `credentials_file` must hold the text that `trigger-gateway token create --scope ingest` prints.
    """
    url = f"{gateway_url.rstrip('/')}/api/v1/webhooks/alertmanager"
    if THIS_MACHINE in gateway_url:
        url += f"  # for {THIS_MACHINE} put the name or address by which Alertmanager reaches this machine"
    return _RECEIVER.replace("__URL__", url)
