"""Print what MLflow's own protocol says: its error codes, and the responses that have a field `message`."""

import json

from mlflow.protos import databricks_pb2, model_registry_pb2, service_pb2

messages = [
    message
    for module in (service_pb2, model_registry_pb2)
    for message in module.DESCRIPTOR.message_types_by_name.values()
]
responses = [
    message.nested_types_by_name["Response"] for message in messages if "Response" in message.nested_types_by_name
]
with_message = [response.full_name for response in responses if "message" in response.fields_by_name]
codes = databricks_pb2.ErrorCode.keys()
print(json.dumps({"codes": codes, "responses": len(responses), "with_message": with_message}))
